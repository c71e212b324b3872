// lighter console: at the terminal of an instance; and the log behind lighter info --show-log.
import type { Command } from 'commander';
import { text } from 'node:stream/consumers';
import { instancePath } from '#src/client/instances.ts';
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import type { Cli, Target } from '../cli.ts';
import { controlled } from './exec.ts';

const CTRL_A = 0x01;
const DETACH = 'q'.charCodeAt(0);

interface ConsoleOptions {
  readonly showLog?: boolean;
  readonly type: string;
}

export function addConsoleCommand(program: Command, cli: Cli): void {
  program
    .command('console')
    .description('Attach to the console of an instance, or show what was printed on it')
    .argument('<instance>')
    .option('--show-log', "Retrieve the instance's console log")
    .option('-t, --type <type>', 'Type of connection to establish', 'console')
    .addHelpText(
      'after',
      '\nExamples:\n  lighter console web             ctrl+a, then q detaches\n  lighter console --show-log web',
    )
    .action(async (name: string, options: ConsoleOptions) => {
      if (options.type !== 'console') {
        throw new AppError('unsupported', `Unknown output type "${options.type}": containers have a console only`);
      }
      if (options.showLog !== true) return attachConsole(cli, name);
      const target = await cli.at(name);
      const log = await text(await target.client.instances.consoleLog(target.name, cli.signal));
      cli.terminal.out(`\nConsole log:\n\n${log}\n`);
    });
}

/** Until it ends or ctrl+a q is typed. */
export async function attachConsole(cli: Cli, instance: string): Promise<void> {
  const { client, name } = await cli.at(instance);
  const { screen, streams } = cli.terminal;
  cli.say('To detach from the console, press: <ctrl>+a q');
  using _raw = screen.isInput ? screen.raw() : undefined;
  await client.sessions.console(instancePath(name), screen.size(), {
    signal: cli.signal,
    streams: { stdin: streams.stdin, stdout: streams.stdout, filter: detachFilter() },
    onStart: controlled(cli, true),
  });
}

/** ctrl+a q detaches; ctrl+a ctrl+a is one ctrl+a. Keys may come one by one. */
export function detachFilter(): (chunk: Buffer) => Buffer | undefined {
  let isPending = false;
  return (chunk) => {
    const kept: number[] = [];
    for (const key of chunk) {
      if (isPending && key === DETACH) return undefined;
      const isEscape = key === CTRL_A && !isPending;
      if (isPending && key !== CTRL_A) kept.push(CTRL_A);
      if (!isEscape) kept.push(key);
      isPending = isEscape;
    }
    return Buffer.from(kept);
  };
}

/** The runtime's log of an instance; empty when there is none yet. */
export async function instanceLog(cli: Cli, { client, name }: Target): Promise<string> {
  try {
    return await text(await client.instances.log(name, 'lxc.log', cli.signal));
  } catch (error) {
    if (kindOf(error) === 'not_found' || /no such file/i.test(messageOf(error))) return '';
    throw error;
  }
}
