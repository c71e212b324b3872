// lighter operation: what the engine does in the background.
import type { Command } from 'commander';
import type { Operation } from '#src/client/wire.ts';
import type { Cli } from '../cli.ts';
import { formatTime, formatYaml } from '../format.ts';
import { addListing, url } from '../resource.ts';

export function addOperationCommands(program: Command, cli: Cli): void {
  const operation = program.command('operation').description('List, show and delete background operations');
  addListing(operation, cli, {
    description: 'List background operations',
    columns: [
      { header: 'ID', cell: ({ id }: Operation) => id },
      { header: 'TYPE', cell: ({ class: kind }) => kind.toUpperCase() },
      { header: 'DESCRIPTION', cell: ({ description }) => description },
      { header: 'STATUS', cell: ({ status }) => status.toUpperCase() },
      { header: 'CANCELABLE', cell: ({ may_cancel }) => (may_cancel ? 'YES' : 'NO') },
      { header: 'CREATED', cell: ({ created_at }) => formatTime(created_at ?? '') ?? '' },
    ],
    load: async (client) => client.operations.list(cli.signal),
    by: ({ id }) => id,
  });
  operation
    .command('show')
    .description('Show details on a background operation')
    .argument('<operation>', 'its id')
    .addHelpText('after', '\nExample:\n  lighter operation show 344a79e4-d88a-45bf-9c39-c72c26f6ab8a')
    .action(async (text: string) => {
      const { client, name } = await cli.at(text);
      const { envelope } = await client.request('GET', url('operations', name), { signal: cli.signal });
      cli.terminal.out(formatYaml(envelope.metadata));
    });
  operation
    .command('delete')
    .alias('cancel')
    .alias('rm')
    .description('Delete a background operation (will attempt to cancel)')
    .argument('<operation>', 'its id')
    .action(async (text: string) => {
      const { client, name } = await cli.at(text);
      await client.operations.cancel(name, cli.signal);
      cli.say(`Operation ${name} deleted`);
    });
}
