// lighter monitor: the engine's events as they come.
import { type Command, Option } from 'commander';
import type { EngineClient } from '#src/client/client.ts';
import type { ApiEvent, EventType, LifecycleMetadata, LogMetadata, Operation } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import { aborted } from '#src/lib/wait.ts';
import { type Cli, repeated } from '../cli.ts';
import { formatYaml } from '../format.ts';

const TYPES: readonly EventType[] = ['logging', 'operation', 'lifecycle'];

interface MonitorOptions {
  readonly type?: readonly string[];
  readonly format: 'json' | 'yaml' | 'pretty';
  readonly pretty?: boolean;
}

export function addMonitorCommand(program: Command, cli: Cli): void {
  program
    .command('monitor')
    .description('Monitor the engine: print its events until interrupted')
    .argument('[remote:]')
    .option('--type <type>', `Event type to listen for (${TYPES.join(', ')}); may be repeated`, repeated)
    .addOption(new Option('-f, --format <format>', 'Format').choices(['json', 'yaml', 'pretty']).default('yaml'))
    .option('--pretty', 'Pretty rendering (short for --format=pretty)')
    .addHelpText('after', '\nExample:\n  lighter monitor --type lifecycle --pretty')
    .action(async (remote: string | undefined, options: MonitorOptions) =>
      monitor(cli, (await cli.at(remote ?? '')).client, options),
    );
}

async function monitor(cli: Cli, client: EngineClient, options: MonitorOptions): Promise<void> {
  const types = (options.type ?? TYPES).map(checkType);
  const format = options.pretty === true ? 'pretty' : options.format;
  const stream = client.newEventStream(types);
  const lost = Promise.withResolvers<never>();
  using _ = stream.listen({
    event: (event) => cli.terminal.out(render(event, format)),
    lost: () => lost.reject(new AppError('unavailable', 'The engine closed the event stream')),
  });
  try {
    await stream.open();
    await Promise.race([aborted(cli.signal), lost.promise]);
  } finally {
    lost.promise.catch(() => undefined); // closing it ourselves is no loss
    stream.close();
  }
}

function checkType(type: string): EventType {
  const known = TYPES.find((name) => name === type);
  if (known) return known;
  throw new AppError('invalid', `"${type}" isn't a supported event type; one of ${TYPES.join(', ')}`);
}

function render(event: ApiEvent, format: MonitorOptions['format']): string {
  if (format === 'json') return `${JSON.stringify(event)}\n`;
  if (format === 'yaml') return `${formatYaml(event)}\n\n`;
  return `${event.timestamp} [${event.type}] ${describe(event)}\n`;
}

function describe({ type, metadata }: ApiEvent): string {
  if (type === 'lifecycle') {
    const { action, source } = metadata as LifecycleMetadata;
    return `${action} ${source}`;
  }
  if (type === 'operation') {
    const { id, description, status, err } = metadata as Operation;
    return `${id} ${description}: ${status} ${err}`.trimEnd();
  }
  const { message, level, context = {} } = metadata as LogMetadata;
  return `${level.toUpperCase()} ${message} ${JSON.stringify(context)}`;
}
