// lighter launch, lighter init: instances from images.
import type { Command } from 'commander';
import type { EngineClient } from '#src/client/client.ts';
import type { DeviceMap, InstancePut, InstancesPost, InstanceSource, Operation } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import { type Cli, keyValue, repeated, type Target } from '../cli.ts';
import { parseMap } from '../editing.ts';
import { imageSource } from '../image-source.ts';
import { attachConsole } from './console.ts';
import { addPreseedOptions, type PreseedOptions, setUpEngine } from './preseed.ts';

interface CreateOptions {
  readonly config?: readonly string[];
  readonly console?: true | string;
  readonly device?: readonly string[];
  readonly ephemeral?: boolean;
  readonly network?: string;
  readonly profiles: boolean;
  readonly profile?: readonly string[];
  readonly storage?: string;
  readonly type?: string;
  readonly empty?: boolean;
  readonly vm?: boolean;
}

export function addCreateCommands(program: Command, cli: Cli): void {
  addPreseedOptions(addCreate(program, 'init', 'Create instances from images; set up the engine (--preseed, --auto)'))
    .alias('create')
    .addHelpText('after', '  lighter init --auto\n  lighter init --preseed < engine.yaml')
    .action(async (image: string | undefined, name: string | undefined, options: CreateOptions & PreseedOptions) => {
      if (!(await setUpEngine(cli, [image, name], options))) await create(cli, [image, name], options);
    });
  addCreate(program, 'launch', 'Create and start instances from images')
    .option('--console [type]', 'Immediately attach to the console')
    .action(async (image: string | undefined, name: string | undefined, options: CreateOptions) => {
      const { client, name: created, remote } = await create(cli, [image, name], options);
      cli.say(`Starting ${created}`);
      await cli.finish(client.instances.setState(created, { action: 'start', timeout: -1 }, cli.call));
      if (options.console !== undefined) await attachConsole(cli, `${remote}:${created}`);
    });
}

function addCreate(program: Command, name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .argument('[image]', 'alias or fingerprint; REMOTE:IMAGE from an image server; none with --empty')
    .argument('[name]', 'absent: the engine makes one up')
    .option('-c, --config <key=value>', 'Config key/value to apply to the new instance', repeated)
    .option('-d, --device <device,key=value...>', 'New key/value to apply to a specific device', repeated)
    .option('-e, --ephemeral', 'Ephemeral instance: deleted when it stops')
    .option('--empty', 'Create an empty instance')
    .option('-n, --network <name>', 'Network to connect eth0 to')
    .option('--no-profiles', 'Create the instance with no profiles applied')
    .option('-p, --profile <name>', 'Profile to apply to the new instance; may be repeated', repeated)
    .option('-s, --storage <pool>', 'Storage pool of the root disk')
    .option('-t, --type <type>', 'Instance type, such as c2-m4')
    .option('--vm', 'Create a virtual machine (where the engine can)')
    .addHelpText(
      'after',
      `
More configuration may come as YAML on standard input.

Examples:
  lighter ${name} debian web -c limits.cpu=2 -c limits.memory=1GiB
  lighter ${name} images:debian/12 web
  lighter ${name} debian db -s fast -d root,size=20GiB
  lighter ${name} debian web < web.yaml`,
    );
}

/** The engine and the name of the new instance. */
async function create(
  cli: Cli,
  [image, name]: readonly [string | undefined, string | undefined],
  options: CreateOptions,
): Promise<Target> {
  // With --empty there is no image, so the one argument is the name.
  const wanted = await cli.at((options.empty === true ? (name ?? image) : name) ?? remoteOf(cli, image));
  const { client } = wanted;
  const body = await bodyOf(cli, wanted, { image, options });
  cli.say(body.name === undefined ? 'Creating the instance' : `Creating ${body.name}`);
  const operation = await cli.finish(client.instances.create(body, cli.call));
  const created = createdName(operation) ?? body.name;
  if (created === undefined) throw new AppError('internal', 'The engine did not tell the name of the new instance');
  if (body.name === undefined) cli.say(`Instance name is: ${created}`);
  return { ...wanted, name: created };
}

/** An instance without a name goes where its image is, if that is an engine. */
function remoteOf(cli: Cli, image: string | undefined): string {
  const { remote } = cli.split(image ?? '');
  const { protocol, public: isPublic } = cli.remotes.get(remote);
  return protocol === 'simplestreams' || isPublic ? '' : `${remote}:`;
}

/** The instance that the operation made, from its URL. */
export function createdName({ resources }: Operation): string | undefined {
  const path = resources?.['instances']?.[0]?.split('?')[0];
  return path === undefined ? undefined : decodeURIComponent(path.split('/').at(-1) ?? '');
}

async function bodyOf(
  cli: Cli,
  { client, name, remote }: Target,
  { image, options }: { readonly image: string | undefined; readonly options: CreateOptions },
): Promise<InstancesPost> {
  const given = await givenBody(cli);
  const profiles = options.profiles ? (options.profile ?? given.profiles) : [];
  return {
    ...given,
    source: await sourceOf(cli, image, { options, client, remote }),
    ...(name !== '' && { name }),
    ...(profiles !== undefined && { profiles }),
    ...typeOf(options),
    ephemeral: options.ephemeral ?? given.ephemeral ?? false,
    config: { ...given.config, ...Object.fromEntries((options.config ?? []).map(keyValue)) },
    devices: { ...given.devices, ...(await devicesOf(cli, client, { options, profiles: profiles ?? ['default'] })) },
  };
}

function typeOf({ type, vm }: CreateOptions): Pick<InstancesPost, 'instance_type' | 'type'> {
  return { ...(type !== undefined && { instance_type: type }), ...(vm === true && { type: 'virtual-machine' }) };
}

async function sourceOf(
  cli: Cli,
  image: string | undefined,
  { options, ...target }: Omit<Target, 'name'> & { readonly options: CreateOptions },
): Promise<InstanceSource> {
  if (options.empty === true) return { type: 'none' };
  if (image === undefined) throw new AppError('invalid', 'An image is needed, or --empty');
  return imageSource(cli, image, target);
}

const FIELDS = ['architecture', 'config', 'devices', 'ephemeral', 'profiles', 'description'];

/** What comes on standard input, when that is no terminal. */
async function givenBody({ terminal }: Cli): Promise<InstancePut> {
  const text = terminal.screen.isInput ? '' : await terminal.readInput();
  const given = Object.entries(parseMap(text)).filter(([field]) => FIELDS.includes(field));
  return Object.fromEntries(given) as InstancePut;
}

async function devicesOf(
  cli: Cli,
  client: EngineClient,
  { options, profiles }: { readonly options: CreateOptions; readonly profiles: readonly string[] },
): Promise<DeviceMap> {
  const devices: Record<string, Record<string, string>> = {};
  if (options.network !== undefined) devices['eth0'] = await nic(cli, client, options.network);
  if (options.storage !== undefined) devices['root'] = { type: 'disk', path: '/', pool: options.storage };
  for (const text of options.device ?? []) {
    const [device = '', ...pairs] = text.split(',');
    if (pairs.length === 0)
      throw new AppError('invalid', `Bad device override syntax, expecting <device>,<key>=<value>: ${text}`);
    // An override needs the rest of the device, which comes from a profile.
    devices[device] = {
      ...(devices[device] ?? (await inheritedDevice(cli, client, { device, profiles }))),
      ...Object.fromEntries(pairs.map(keyValue)),
    };
  }
  return devices;
}

/** A bridge or interface that the engine does not manage is used as it is. */
export async function nic(cli: Cli, client: EngineClient, name: string): Promise<Record<string, string>> {
  const { managed, type } = await client.networks.get(name, cli.signal);
  if (managed) return { type: 'nic', network: name, name: 'eth0' };
  return { type: 'nic', nictype: type === 'bridge' ? 'bridged' : 'macvlan', parent: name, name: 'eth0' };
}

async function inheritedDevice(
  cli: Cli,
  client: EngineClient,
  { device, profiles }: { readonly device: string; readonly profiles: readonly string[] },
): Promise<Readonly<Record<string, string>>> {
  let found: Readonly<Record<string, string>> = {};
  for (const name of profiles) {
    const profile = await client.profiles.get(name, cli.signal);
    found = profile.devices[device] ?? found;
  }
  return found;
}
