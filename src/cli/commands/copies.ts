// lighter copy, move and rename: within an engine, and between engines.
import type { Command } from 'commander';
import type { EngineClient } from '#src/client/client.ts';
import type { PendingOperation } from '#src/client/operations.ts';
import { instancePath } from '#src/client/instances.ts';
import {
  type DeviceMap,
  type Instance,
  type InstancePost,
  type InstancesPost,
  type InstanceSource,
  STATUS,
} from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import { type Cli, keyValue, repeated, type Target } from '../cli.ts';
import { type Mode, modeOption, transfer } from '../migration.ts';
import { createdName } from './create.ts';

interface CopyOptions {
  readonly config?: readonly string[];
  readonly device?: readonly string[];
  readonly ephemeral?: boolean;
  readonly profiles: boolean;
  readonly profile?: readonly string[];
  readonly storage?: string;
  readonly instanceOnly?: boolean;
  readonly refresh?: boolean;
  readonly stateless?: boolean;
  readonly allowInconsistent?: boolean;
  readonly targetProject?: string;
  readonly mode: Mode;
}

const NO_CHANGES: CopyOptions = { profiles: true, mode: 'pull' };

interface End extends Target {
  readonly snapshot: string | undefined;
}

/** What the command line names as a source: INSTANCE or INSTANCE/SNAPSHOT. */
async function end(cli: Cli, text: string): Promise<End> {
  const target = await cli.at(text);
  const [name = '', snapshot] = target.name.split('/', 2);
  return { ...target, name, snapshot };
}

export function addCopyCommands(program: Command, cli: Cli): void {
  withChanges(program.command('copy').alias('cp').description('Copy instances within or between engines'))
    .argument('<source[/snapshot]>')
    .argument('[name]', 'absent: the engine makes one up')
    .option('-e, --ephemeral', 'Ephemeral instance: deleted when it stops')
    .option('--refresh', 'Perform an incremental copy')
    .addHelpText(
      'after',
      '\nExamples:\n  lighter copy web web2\n  lighter copy web/before-upgrade old-web\n  lighter copy web backup --refresh\n  lighter copy web other:web',
    )
    .action(async (source: string, name: string | undefined, given: CopyOptions) => {
      await copy(cli, { source: await end(cli, source), target: name }, given);
    });
  withChanges(program.command('move').alias('mv').description('Move instances: rename them, or take them elsewhere'))
    .argument('<instance[/snapshot]>')
    .argument('[name[/snapshot]]')
    .addHelpText(
      'after',
      '\nExamples:\n  lighter move web web2\n  lighter move web --storage fast\n  lighter move web other:\n  lighter move web/snap0 web/before-upgrade',
    )
    .action(async (source: string, target: string | undefined, given: CopyOptions) => {
      await move(cli, await end(cli, source), target, given);
    });
  program
    .command('rename')
    .description('Rename instances and snapshots')
    .argument('<instance[/snapshot]>')
    .argument('<name[/snapshot]>')
    .addHelpText('after', '\nExamples:\n  lighter rename web web2\n  lighter rename web/snap0 web/before-upgrade')
    .action(async (source: string, target: string) => {
      const from = await end(cli, source);
      const isElsewhere = /^[A-Za-z0-9._-]+:/.test(target) && cli.split(target).remote !== from.remote;
      if (isElsewhere) throw new AppError('invalid', "Can't rename to another remote; lighter move takes it there");
      await move(cli, from, target, NO_CHANGES);
    });
}

function withChanges(command: Command): Command {
  return command
    .option('-c, --config <key=value>', 'Config key/value to apply to the new instance', repeated)
    .option('-d, --device <device,key=value...>', 'New key/value to apply to a specific device', repeated)
    .option('--no-profiles', 'Create the instance with no profiles applied')
    .option('-p, --profile <name>', 'Profile to apply to the new instance; may be repeated', repeated)
    .option('-s, --storage <pool>', 'Storage pool name')
    .option('--instance-only', 'Without the snapshots')
    .option('--stateless', 'Copy a stateful instance stateless')
    .option('--allow-inconsistent', 'Ignore copy errors for volatile files')
    .option('--target-project <project>', 'Copy to a project different from the source')
    .addOption(modeOption());
}

function checkCopy({ snapshot }: End, given: CopyOptions): void {
  if (snapshot !== undefined && given.instanceOnly === true) {
    throw new AppError('invalid', "--instance-only can't be passed when the source is a snapshot");
  }
  if (snapshot !== undefined && given.refresh === true) {
    throw new AppError('invalid', '--refresh can only be used with instances');
  }
}

/** `target` undefined: the same engine, a name of its choice. */
async function copy(
  cli: Cli,
  { source, target }: { readonly source: End; readonly target: string | undefined },
  given: CopyOptions,
): Promise<void> {
  checkCopy(source, given);
  const to = target === undefined ? { remote: source.remote, name: '' } : cli.split(target);
  const client = await cli.client(to.remote, given.targetProject ?? cli.projectOf(to.remote));
  const isHere = to.remote === source.remote;
  // Another engine does not know the name yet: it keeps it.
  const name = to.name === '' && !isHere ? source.name : to.name;
  const from = await source.client.instances.get(source.name, cli.signal);
  const body = { ...copyBody(from, given), ...(name !== '' && { name }) };
  const receive = (described: InstanceSource): Promise<PendingOperation> => {
    return client.instances.create({ ...body, source: described }, cli.call);
  };
  const ended = isHere
    ? await cli.finish(receive(localSource(cli, source, given)))
    : await transfer(cli, given.mode, {
        source,
        target: { client, remote: to.remote },
        send: (target) => send(cli, { source, from, target }, given),
        receive: (described) => receive(remoteSource(described, given)),
      });
  if (name === '') cli.say(`Instance name is: ${createdName(ended) ?? ''}`);
}

function localSource(cli: Cli, { name, snapshot, remote }: End, given: CopyOptions): InstanceSource {
  return {
    type: 'copy',
    source: snapshot === undefined ? name : `${name}/${snapshot}`,
    instance_only: given.instanceOnly === true,
    refresh: given.refresh === true,
    allow_inconsistent: given.allowInconsistent === true,
    ...(given.targetProject !== undefined && { project: cli.projectOf(remote) ?? 'default' }),
  };
}

interface Sending {
  readonly source: End;
  readonly from: Instance;
  /** Where it goes to, if the source is to connect. */
  readonly target: object;
}

function send(cli: Cli, { source, from, target }: Sending, given: CopyOptions): Promise<PendingOperation> {
  const { name, snapshot } = source;
  const path = instancePath(name);
  const isLive = from.status_code === STATUS.running && given.stateless !== true && from.stateful;
  const at = snapshot === undefined ? path : `${path}/snapshots/${encodeURIComponent(snapshot)}`;
  const flags = { instance_only: given.instanceOnly === true, allow_inconsistent: given.allowInconsistent === true };
  const body = { name: snapshot ?? name, migration: true, live: isLive, ...flags, ...target };
  return source.client.operations.start('POST', at, { ...cli.call, body });
}

function remoteSource(described: object, given: CopyOptions): InstanceSource {
  return {
    ...described,
    type: 'migration',
    instance_only: given.instanceOnly === true,
    refresh: given.refresh === true,
    allow_inconsistent: given.allowInconsistent === true,
  };
}

function copyBody(from: Instance, given: CopyOptions): Omit<InstancesPost, 'source'> {
  const profiles = given.profiles ? given.profile : [];
  // What another engine needs to know as well; volatile keys belong to the original.
  const config = Object.entries(from.config).filter(([key]) => !key.startsWith('volatile.') || KEPT.has(key));
  return {
    profiles: profiles ?? from.profiles ?? [],
    ephemeral: given.ephemeral ?? from.ephemeral,
    description: from.description,
    architecture: from.architecture,
    config: { ...Object.fromEntries(config), ...Object.fromEntries((given.config ?? []).map(keyValue)) },
    devices: { ...from.devices, ...changedDevices(from, given) },
  };
}

const KEPT = new Set(['volatile.base_image']);

/** What the command line changes of the source's devices. */
function changedDevices(from: Instance, given: CopyOptions): DeviceMap {
  const known: DeviceMap = { ...from.expanded_devices, ...from.devices };
  const changed: Record<string, DeviceMap[string]> = {};
  if (given.storage !== undefined) {
    const [name, root] = Object.entries(known).find(([, device]) => device['path'] === '/') ?? ['root', {}];
    changed[name] = { ...root, type: 'disk', path: '/', pool: given.storage };
  }
  for (const text of given.device ?? []) {
    const [device = '', ...pairs] = text.split(',');
    if (pairs.length === 0) {
      throw new AppError('invalid', `Bad device override syntax, expecting <device>,<key>=<value>: ${text}`);
    }
    changed[device] = { ...known[device], ...changed[device], ...Object.fromEntries(pairs.map(keyValue)) };
  }
  return changed;
}

async function move(cli: Cli, source: End, target: string | undefined, given: CopyOptions): Promise<void> {
  const to = target === undefined ? source : elsewhere(cli, source, target);
  if (source.snapshot !== undefined) return renameSnapshot(cli, source, to);
  if (to.remote !== source.remote) return moveAway(cli, source, { target: target ?? '', given });
  if (target === undefined && given.storage === undefined && given.targetProject === undefined) {
    throw new AppError('invalid', 'You must specify a destination instance name, a pool or a project');
  }
  const name = to.name === '' ? source.name : to.name;
  await cli.finish(source.client.instances.move(source.name, moveBody(name, given), cli.call));
  await applyChanges(cli, source.client, name, given);
}

/** A target without a remote is on the source's. */
function elsewhere(cli: Cli, source: End, target: string): Omit<Target, 'client'> {
  return /^[A-Za-z0-9._-]+:/.test(target) ? cli.split(target) : { remote: source.remote, name: target };
}

function moveBody(name: string, { storage, targetProject, instanceOnly = false }: CopyOptions): InstancePost {
  const to = {
    ...(storage === undefined ? {} : { pool: storage }),
    ...(targetProject === undefined ? {} : { project: targetProject }),
  };
  const isMove = Object.keys(to).length > 0;
  return { name, ...to, ...(isMove && { migration: true }), instance_only: instanceOnly };
}

/** The instance keeps its place; what else is asked for is changed afterwards. */
async function applyChanges(cli: Cli, client: EngineClient, name: string, given: CopyOptions): Promise<void> {
  const { config = [], profile, profiles } = given;
  if (!changesAnything(given)) return;
  if (given.targetProject !== undefined) {
    throw new AppError('invalid', 'Moved; -c, -d and -p do not go with --target-project: change it there');
  }
  const { instance, etag } = await client.instances.getWithTag(name, cli.signal);
  const { storage: _storage, ...rest } = given;
  const body = {
    architecture: instance.architecture,
    ephemeral: instance.ephemeral,
    stateful: instance.stateful,
    description: instance.description,
    profiles: profiles ? (profile ?? instance.profiles ?? []) : [],
    config: { ...instance.config, ...Object.fromEntries(config.map(keyValue)) },
    devices: { ...instance.devices, ...changedDevices(instance, rest) },
  };
  await cli.finish(client.instances.update(name, body, { ...cli.call, etag }));
}

function changesAnything({ config, device, profile, profiles }: CopyOptions): boolean {
  return config !== undefined || device !== undefined || profile !== undefined || !profiles;
}

/** Copied, then deleted: only an instance that stands still arrives whole. */
async function moveAway(
  cli: Cli,
  source: End,
  { target, given }: { readonly target: string; readonly given: CopyOptions },
): Promise<void> {
  const { status_code } = await source.client.instances.get(source.name, cli.signal);
  if (status_code !== STATUS.stopped) {
    throw new AppError('conflict', `The instance runs; stop it first (lighter stop ${source.remote}:${source.name})`);
  }
  await copy(cli, { source, target }, given);
  await cli.finish(source.client.instances.remove(source.name, cli.call));
}

async function renameSnapshot(cli: Cli, source: End, to: Omit<Target, 'client'>): Promise<void> {
  const { client, name: instance, snapshot = '' } = source;
  const [other, name] = to.name.split('/', 2);
  if (name === undefined || other !== instance || to.remote !== source.remote) {
    throw new AppError('invalid', 'Invalid new snapshot name, parent must be the same as source');
  }
  await cli.finish(client.instances.renameSnapshot(instance, { from: snapshot, to: name }, cli.call));
}
