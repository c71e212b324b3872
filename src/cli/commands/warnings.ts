// lighter warning: what the engine wants an administrator to know.
import { type Command, Option } from 'commander';
import type { Warning } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Cli } from '../cli.ts';
import { formatTime, formatYaml } from '../format.ts';
import { formatOption, listOf, remoteFirst, send, url } from '../resource.ts';
import { checkFormat, chooseColumns, type ColumnSet, renderList } from '../table.ts';

const COLUMNS: ColumnSet<Warning> = {
  c: { header: 'COUNT', cell: ({ count }) => String(count) },
  f: { header: 'FIRST SEEN', cell: ({ first_seen_at }) => formatTime(first_seen_at) ?? '' },
  l: { header: 'LAST SEEN', cell: ({ last_seen_at }) => formatTime(last_seen_at) ?? '' },
  L: { header: 'LOCATION', cell: ({ location }) => location },
  p: { header: 'PROJECT', cell: ({ project }) => project },
  s: { header: 'SEVERITY', cell: ({ severity }) => severity.toUpperCase() },
  S: { header: 'STATUS', cell: ({ status }) => status.toUpperCase() },
  t: { header: 'TYPE', cell: ({ type }) => type },
  u: { header: 'UUID', cell: ({ uuid }) => uuid },
};
/** On one node there is no location. */
const DEFAULT_COLUMNS = 'utSscpl';

interface ListOptions {
  readonly all?: boolean;
  readonly columns: string;
  readonly format: string;
}

export function addWarningCommands(program: Command, cli: Cli): void {
  const warning = program.command('warning').description('Manage warnings');
  addList(warning, cli);
  warning
    .command('show')
    .description('Show warning')
    .argument('<uuid>')
    .action(async (text: string) => {
      const { client, name } = await cli.at(text);
      const { envelope } = await client.request('GET', url('warnings', name), { signal: cli.signal });
      cli.terminal.out(formatYaml(envelope.metadata));
    });
  warning
    .command('acknowledge')
    .alias('ack')
    .description('Acknowledge warning')
    .argument('<uuid>')
    .action(async (text: string) => {
      const { client, name } = await cli.at(text);
      await send(cli, client, { method: 'PUT', path: url('warnings', name), body: { status: 'acknowledged' } });
    });
  warning
    .command('delete')
    .alias('rm')
    .description('Delete warning')
    .argument('[uuid]')
    .option('-a, --all', 'Delete all warnings')
    .addHelpText('after', '\nExample:\n  lighter warning delete --all')
    .action(async (text: string | undefined, { all = false }: { readonly all?: boolean }) => {
      const { client, name } = await cli.at(text ?? '');
      if (all === (name !== '')) throw new AppError('invalid', 'Give the UUID of a warning, or --all');
      const names = all ? (await listOf<Warning>(cli, client, '/1.0/warnings')).map(({ uuid }) => uuid) : [name];
      for (const uuid of names) await send(cli, client, { method: 'DELETE', path: url('warnings', uuid) });
    });
}

function addList(warning: Command, cli: Cli): void {
  warning
    .command('list')
    .alias('ls')
    .description('List warnings')
    .usage('[options] [remote:]')
    .argument('[word...]')
    .option('-a, --all', 'List all warnings')
    .addOption(new Option('-c, --columns <columns>', 'Columns').default(DEFAULT_COLUMNS))
    .addOption(formatOption())
    .addHelpText(
      'after',
      `\nColumns (-c):\n${Object.entries(COLUMNS)
        .map(([letter, { header }]) => `  ${letter} - ${header.toLowerCase()}`)
        .join('\n')}`,
    )
    .action(async (words: readonly string[], options: ListOptions) => {
      const format = checkFormat(options.format);
      const columns = chooseColumns(options.columns, COLUMNS);
      const { client } = await cli.at(remoteFirst(words)[0]);
      const warnings = (await listOf<Warning>(cli, client, '/1.0/warnings')).filter(
        ({ status }) => options.all === true || status !== 'resolved',
      );
      cli.terminal.out(renderList(warnings, columns, format));
    });
}
