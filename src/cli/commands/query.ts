// lighter query: any request of the REST API.
import { type Command, Option } from 'commander';
import type { Method } from '#src/client/transport.ts';
import type { Operation } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Cli } from '../cli.ts';

interface QueryOptions {
  readonly request: Method;
  readonly data?: string;
  readonly raw?: boolean;
  readonly wait?: boolean;
}

export function addQueryCommand(program: Command, cli: Cli): void {
  program
    .command('query')
    .description('Send a raw query to the engine')
    .argument('<API path>', 'such as /1.0/instances')
    .addOption(
      new Option('-X, --request <method>', 'Action').choices(['GET', 'PUT', 'POST', 'PATCH', 'DELETE']).default('GET'),
    )
    .option('-d, --data <json>', 'Input data; - reads it from standard input')
    .option('--raw', 'Print the whole answer, not just its metadata')
    .option('--wait', 'Wait for the operation to complete')
    .addHelpText(
      'after',
      '\nExamples:\n  lighter query /1.0/instances/web/state\n  lighter query --wait -X POST -d \'{"name": "before"}\' /1.0/instances/web/snapshots',
    )
    .action(async (path: string, options: QueryOptions) => query(cli, path, options));
}

async function query(cli: Cli, text: string, { request, data, raw, wait }: QueryOptions): Promise<void> {
  const { client, name: path } = await cli.at(text);
  if (!path.startsWith('/')) throw new AppError('invalid', 'Query path must start with /');
  const input = data === '-' ? await cli.terminal.readInput() : data;
  const body = input === undefined ? {} : { body: parseData(input) };
  const { envelope } = await client.request(request, path, { ...body, signal: cli.signal });
  if (raw === true) return print(cli, envelope);
  if (envelope.type !== 'async' || wait !== true) return print(cli, envelope.metadata);
  print(cli, await client.operations.wait((envelope.metadata as Operation).id, cli.signal));
}

/** An object without anything is what the API says for "done". */
function print(cli: Cli, value: unknown): void {
  if (value === null || (typeof value === 'object' && Object.keys(value).length === 0)) return;
  cli.print(typeof value === 'string' ? value : JSON.stringify(value, null, 2));
}

function parseData(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new AppError('invalid', '--data is not JSON', { cause: error });
  }
}
