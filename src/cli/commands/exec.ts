// lighter exec: a program in an instance, at this terminal or in a pipeline.
import { type Command, InvalidArgumentError, Option } from 'commander';
import { instancePath } from '#src/client/instances.ts';
import type { Control, ExecRequest } from '#src/client/sessions.ts';
import { AppError } from '#src/lib/errors.ts';
import { type Cli, keyValue, repeated } from '../cli.ts';

interface ExecOptions {
  readonly cwd?: string;
  readonly disableStdin?: boolean;
  readonly env?: readonly string[];
  readonly forceInteractive?: boolean;
  readonly forceNoninteractive?: boolean;
  readonly group?: number;
  readonly mode: string;
  readonly user?: number;
}

export function addExecCommand(program: Command, cli: Cli): void {
  program
    .command('exec')
    .description('Execute commands in instances')
    .argument('<instance>')
    .argument('<command...>', 'program and arguments; there is no shell around them; its options need -- before it')
    .option('--cwd <directory>', 'Directory to run the command in (default /root)')
    .option('-n, --disable-stdin', 'Disable stdin (reads from /dev/null)')
    .option('--env <key=value>', 'Environment variable to set (e.g. HOME=/home/foo); may be repeated', repeated)
    .option('-t, --force-interactive', 'Force pseudo-terminal allocation')
    .option('-T, --force-noninteractive', 'Disable pseudo-terminal allocation')
    .option('--group <id>', 'Group ID to run the command as (default 0)', id)
    .option('--user <id>', 'User ID to run the command as (default 0)', id)
    .addOption(
      new Option('--mode <mode>', 'Override the terminal mode')
        .choices(['auto', 'interactive', 'non-interactive'])
        .default('auto'),
    )
    .addHelpText(
      'after',
      `
A terminal is given to the program when standard input and output both are terminals.
The exit code is the program's own.

Examples:
  lighter exec web -- bash
  lighter exec web --env DEBUG=1 --user 1000 --cwd /srv -- ./report --daily
  lighter exec web -- sh -c 'cd /tmp && ls'
  lighter exec web -T -- tar c /etc | tar t`,
    )
    .action(async (name: string, command: readonly string[], options: ExecOptions) => {
      cli.exitCode = await exec(cli, name, { command, options });
    });
}

function id(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('It must be a number.');
  return Number(text);
}

function isInteractive({ terminal: { screen } }: Cli, options: ExecOptions): boolean {
  const forced = [options.forceInteractive, options.forceNoninteractive];
  if (options.mode !== 'auto' && forced.includes(true)) {
    throw new AppError('invalid', "You can't pass -t or -T at the same time as --mode");
  }
  if (!forced.includes(undefined)) throw new AppError('invalid', "You can't pass -t and -T at the same time");
  if (options.mode !== 'auto') return options.mode === 'interactive';
  return forced.includes(true) ? forced[0] === true : screen.isInput && screen.isOutput;
}

async function exec(
  cli: Cli,
  instance: string,
  { command, options }: { readonly command: readonly string[]; readonly options: ExecOptions },
): Promise<number> {
  const { client, name } = await cli.at(instance);
  const { screen, streams } = cli.terminal;
  const interactive = isInteractive(cli, options);
  const request = requestOf(cli, command, { options, interactive });
  using _raw = interactive && screen.isInput ? screen.raw() : undefined;
  return client.sessions.exec(instancePath(name), request, {
    signal: cli.signal,
    streams: { ...streams, stdin: options.disableStdin === true ? undefined : streams.stdin },
    onStart: controlled(cli, interactive),
  });
}

function requestOf(
  { terminal: { screen } }: Cli,
  command: readonly string[],
  { options, interactive }: { readonly options: ExecOptions; readonly interactive: boolean },
): ExecRequest {
  const { user, group, cwd } = options;
  const term = interactive && screen.type !== undefined ? { TERM: screen.type } : {};
  return {
    command,
    interactive,
    environment: { ...term, ...Object.fromEntries((options.env ?? []).map(keyValue)) },
    ...(interactive && screen.size()),
    ...(user !== undefined && { user }),
    ...(group !== undefined && { group }),
    ...(cwd !== undefined && { cwd }),
  };
}

/** While a session lasts, sizes of the window and signals go to the other end. */
export function controlled({ terminal: { screen } }: Cli, interactive: boolean): (control: Control) => Disposable {
  return (control) => {
    const stack = new DisposableStack();
    if (interactive) {
      control.resize(screen.size());
      stack.use(screen.onResize(() => control.resize(screen.size())));
    }
    stack.use(screen.takeSignals((signal) => control.signal(signal)));
    return stack;
  };
}
