// lighter start, stop, restart, pause, delete: one or many instances.
import { type Command, InvalidArgumentError } from 'commander';
import { EngineError } from '#src/client/errors.ts';
import { STATUS, type StateAction } from '#src/client/wire.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import { confirm } from '../ask.ts';
import type { Cli, Target } from '../cli.ts';
import { attachConsole } from './console.ts';

interface StateOptions {
  readonly all?: boolean;
  readonly force?: boolean;
  readonly timeout?: number;
  readonly stateless?: boolean;
  readonly stateful?: boolean;
  readonly console?: true | string;
}

interface DeleteOptions {
  readonly force?: boolean;
  readonly interactive?: boolean;
}

interface Verb {
  readonly name: string;
  readonly action: StateAction;
  readonly description: string;
  /** Takes --force and --timeout. */
  readonly mayForce: boolean;
  /** A console shows how it goes. */
  readonly mayAttach: boolean;
  /** Status codes that --all looks for. */
  readonly from: readonly number[];
}

const VERBS: readonly Verb[] = [
  {
    name: 'start',
    action: 'start',
    description: 'Start instances',
    mayForce: false,
    mayAttach: true,
    from: [STATUS.stopped, STATUS.frozen],
  },
  {
    name: 'stop',
    action: 'stop',
    description: 'Stop instances',
    mayForce: true,
    mayAttach: true,
    from: [STATUS.running, STATUS.frozen],
  },
  {
    name: 'restart',
    action: 'restart',
    description: 'Restart instances',
    mayForce: true,
    mayAttach: true,
    from: [STATUS.running],
  },
  {
    name: 'pause',
    action: 'freeze',
    description: 'Pause instances; start lets them go on',
    mayForce: false,
    mayAttach: false,
    from: [STATUS.running],
  },
];

export function addStateCommands(program: Command, cli: Cli): void {
  for (const verb of VERBS) addVerb(program, cli, verb);
  program
    .command('delete')
    .alias('rm')
    .description('Delete instances and snapshots')
    .argument('<instance[/snapshot]...>')
    .option('-f, --force', 'Force the removal of running instances')
    .option('-i, --interactive', 'Require user confirmation')
    .addHelpText(
      'after',
      '\nExamples:\n  lighter delete web\n  lighter delete web/before-upgrade\n  lighter delete --force web db',
    )
    .action(async (names: readonly string[], options: DeleteOptions) => {
      if (options.interactive === true) for (const name of names) await confirmRemoval(cli, name);
      await each(cli, 'delete', names, async (name) => remove(cli, name, options.force === true));
    });
}

async function confirmRemoval(cli: Cli, name: string): Promise<void> {
  if (!(await confirm(cli, `Remove ${name}`))) throw new AppError('invalid', 'User aborted delete operation');
}

function addVerb(program: Command, cli: Cli, verb: Verb): void {
  const command = program
    .command(verb.name)
    .description(verb.description)
    .argument('[instance...]')
    .option('--all', 'Run against all instances')
    .addHelpText('after', `\nExamples:\n  lighter ${verb.name} web db\n  lighter ${verb.name} --all`);
  if (verb.mayForce) {
    command
      .option('-f, --force', 'Force the instance to shutdown')
      .option('--timeout <seconds>', 'Time to wait for the instance before giving up (-1: for ever)', seconds, -1);
  }
  if (verb.action === 'start') command.option('--stateless', 'Ignore the instance state');
  if (verb.action === 'stop') command.option('--stateful', 'Store the instance state');
  if (verb.mayAttach) command.option('--console [type]', 'Immediately attach to the console');
  command.action(async (names: readonly string[], options: StateOptions) => {
    const all = await targets(cli, verb, names, options);
    const [only = ''] = all;
    if (options.console !== undefined && all.length !== 1) {
      throw new AppError('invalid', '--console only works with a single instance');
    }
    // The console of an instance that stops is watched from before it does.
    const watched = options.console !== undefined && verb.action === 'stop' ? attachConsole(cli, only) : undefined;
    await each(cli, verb.name, all, async (name) => change(cli, name, verb, options));
    if (watched) await watched;
    else if (options.console !== undefined) await attachConsole(cli, only);
  });
}

function seconds(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < -1) throw new InvalidArgumentError('It must be a number of seconds.');
  return value;
}

async function targets(
  cli: Cli,
  verb: Verb,
  names: readonly string[],
  options: StateOptions,
): Promise<readonly string[]> {
  if (options.all !== true && names.length === 0) throw new AppError('invalid', 'An instance name is needed, or --all');
  if (options.all !== true) return names;
  const remotes = names.length === 0 ? [`${cli.defaultRemote}:`] : names;
  const places = await Promise.all(remotes.map(async (text) => cli.at(text)));
  if (places.some(({ name }) => name !== '')) throw new AppError('invalid', 'Both --all and instance name given');
  const found = await Promise.all(places.map(async (target) => candidates(cli, verb, target)));
  return found.flat();
}

async function candidates(cli: Cli, verb: Verb, { client, remote }: Target): Promise<readonly string[]> {
  const instances = await client.instances.list({ signal: cli.signal });
  return instances
    .filter(({ status_code }) => verb.from.includes(status_code))
    .map(({ name }) => (remote === cli.defaultRemote ? name : `${remote}:${name}`));
}

/** All side by side; with several, each failure is told with its name. */
async function each(
  cli: Cli,
  verb: string,
  names: readonly string[],
  work: (name: string) => Promise<void>,
): Promise<void> {
  if (names.length === 1) return work(names[0] ?? '');
  const ends = await Promise.allSettled(names.map(work));
  ends.forEach((end, index) => {
    if (end.status === 'rejected') cli.terminal.err(`error: ${names[index]}: ${textOf(end.reason)}\n`);
  });
  if (ends.some(({ status }) => status === 'rejected'))
    throw new AppError('internal', `Some instances failed to ${verb}`);
}

function textOf(error: unknown): string {
  return error instanceof EngineError ? error.reply : messageOf(error);
}

async function change(cli: Cli, text: string, verb: Verb, options: StateOptions): Promise<void> {
  const { client, name } = await cli.at(text);
  const state = {
    action: verb.action,
    timeout: options.timeout ?? -1,
    force: options.force === true,
    ...(await startState(cli, text, verb, options)),
    ...(options.stateful === true && { stateful: true }),
  };
  await cli.finish(client.instances.setState(name, state, cli.call));
}

/** A paused instance goes on; one that was stopped with its state is started with it. */
async function startState(cli: Cli, text: string, verb: Verb, { stateless = false }: StateOptions): Promise<object> {
  if (verb.action !== 'start') return {};
  const { client, name } = await cli.at(text);
  const { status_code, stateful } = await client.instances.get(name, cli.signal);
  if (status_code === STATUS.frozen) return { action: 'unfreeze' };
  return stateful && !stateless ? { stateful: true } : {};
}

async function remove(cli: Cli, text: string, force: boolean): Promise<void> {
  const { client, name } = await cli.at(text);
  const [instance = '', snapshot] = name.split('/');
  if (snapshot !== undefined) {
    await cli.finish(client.instances.removeSnapshot(instance, snapshot, cli.call));
    return;
  }
  const { status_code, ephemeral } = await client.instances.get(name, cli.signal);
  if (status_code !== STATUS.stopped) {
    if (!force) throw new AppError('conflict', 'The instance is currently running, stop it first or pass --force');
    await cli.finish(client.instances.setState(name, { action: 'stop', timeout: -1, force: true }, cli.call));
    // Ephemeral ones go when they stop.
    if (ephemeral) return;
  }
  await cli.finish(client.instances.remove(name, cli.call));
}
