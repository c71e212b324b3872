// lighter config device and lighter profile device: the devices of an instance, and of a profile.
import type { Command } from 'commander';
import type { DeviceMap } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import { type Cli, keyValue } from '../cli.ts';
import { formatYaml, sorted } from '../format.ts';
import { INSTANCE_KIND } from '../kinds.ts';
import { change, givenValues, type Kind, place, read, withKeys } from '../resource.ts';

type Fields = Readonly<Record<string, unknown>>;
type Device = DeviceMap[string];

const READ = 'retrieved for';
const ADVICE = '. Override device or modify profile instead';

interface Found {
  /** Its own. */
  readonly devices: DeviceMap;
  /** Those of its profiles as well. */
  readonly expanded: DeviceMap;
}

export function addDeviceCommands(parent: Command, cli: Cli, kind: Kind): void {
  const device = parent.command('device').description(`Manage devices of ${kind.noun}s`);
  const at = `lighter ${kind.group} device`;
  addNew(device, cli, kind);
  addChanges(device, cli, kind);
  device
    .command('get')
    .description('Get values for device configuration keys')
    .argument(kind.names[0] ?? '')
    .argument('<device>')
    .argument('<key>')
    .action(async (owner: string, name: string, key: string) => {
      cli.print(own(await find(cli, kind, owner), name, READ)[key] ?? '');
    });
  device
    .command('list')
    .alias('ls')
    .description('List devices')
    .argument(kind.names[0] ?? '')
    .action(async (owner: string) => {
      for (const name of Object.keys(sorted((await find(cli, kind, owner)).devices))) cli.print(name);
    });
  device
    .command('show')
    .description('Show full device configuration')
    .argument(kind.names[0] ?? '')
    .addHelpText('after', `\nExample:\n  ${at} show ${kind.example}`)
    .action(async (owner: string) => {
      const { devices } = await find(cli, kind, owner);
      const ordered = Object.entries(devices).map(([name, fields]) => [name, sorted(fields)]);
      cli.terminal.out(formatYaml(sorted(Object.fromEntries(ordered) as DeviceMap)));
    });
  if (kind === INSTANCE_KIND) addOverride(device, cli, kind);
}

function addNew(device: Command, cli: Cli, kind: Kind): void {
  const at = `lighter ${kind.group} device`;
  device
    .command('add')
    .description('Add devices')
    .argument(kind.names[0] ?? '')
    .argument('<device>')
    .argument('<type>', 'nic, disk, unix-char, proxy …')
    .argument('[key=value...]')
    .addHelpText(
      'after',
      `\nExamples:\n  ${at} add ${kind.example} share disk source=/srv/share path=/opt\n  ${at} add ${kind.example} data disk pool=default source=volume path=/data`,
    )
    .action(async (owner: string, name: string, type: string, pairs: readonly string[]) => {
      await edit(cli, kind, owner, ({ devices }) => {
        if (devices[name]) throw new AppError('conflict', 'The device already exists');
        return { ...devices, [name]: { ...Object.fromEntries(pairs.map(keyValue)), type } };
      });
      cli.say(`Device ${name} added to ${cli.split(owner).name}`);
    });
}

function addChanges(device: Command, cli: Cli, kind: Kind): void {
  const at = `lighter ${kind.group} device`;
  device
    .command('set')
    .description('Set device configuration keys')
    .argument(kind.names[0] ?? '')
    .argument('<device>')
    .argument('<key=value...>', 'or one key and one value')
    .addHelpText('after', `\nExample:\n  ${at} set ${kind.example} root size=20GiB`)
    .action(async (owner: string, name: string, pairs: readonly string[]) => {
      await setKeys(cli, kind, { owner, name }, await givenValues(cli, pairs));
    });
  device
    .command('unset')
    .description('Unset device configuration keys')
    .argument(kind.names[0] ?? '')
    .argument('<device>')
    .argument('<key>')
    .action(async (owner: string, name: string, key: string) => setKeys(cli, kind, { owner, name }, { [key]: '' }));
  device
    .command('remove')
    .alias('rm')
    .description('Remove devices')
    .argument(kind.names[0] ?? '')
    .argument('<device...>')
    .action(async (owner: string, names: readonly string[]) => {
      await edit(cli, kind, owner, (found) => {
        for (const name of names) own(found, name, 'removed from');
        return Object.fromEntries(Object.entries(found.devices).filter(([name]) => !names.includes(name)));
      });
      cli.say(`Device ${names.join(', ')} removed from ${cli.split(owner).name}`);
    });
}

function addOverride(device: Command, cli: Cli, kind: Kind): void {
  device
    .command('override')
    .description('Copy profile inherited devices and override configuration keys')
    .argument('<instance>')
    .argument('<device>')
    .argument('[key=value...]')
    .addHelpText('after', '\nExample:\n  lighter config device override web root size=20GiB')
    .action(async (owner: string, name: string, pairs: readonly string[]) => {
      await edit(cli, kind, owner, ({ devices, expanded }) => {
        if (devices[name]) throw new AppError('conflict', 'The device already exists');
        const inherited = expanded[name];
        if (!inherited) throw new AppError('not_found', "The profile device doesn't exist");
        return { ...devices, [name]: { ...inherited, ...Object.fromEntries(pairs.map(keyValue)) } };
      });
      cli.say(`Device ${name} overridden for ${cli.split(owner).name}`);
    });
}

function foundIn({ devices, expanded_devices }: Fields): Found {
  const mine = (devices ?? {}) as DeviceMap;
  return { devices: mine, expanded: (expanded_devices ?? mine) as DeviceMap };
}

async function find(cli: Cli, kind: Kind, owner: string): Promise<Found> {
  return foundIn((await read(cli, await place(cli, kind, [owner]))).value);
}

/** A device of its own; those of profiles are changed there, or overridden. */
function own({ devices, expanded }: Found, name: string, verb: string): Device {
  const device = devices[name];
  if (device) return device;
  if (expanded[name]) {
    throw new AppError(
      'invalid',
      `Device from profile(s) cannot be ${verb} individual instance${verb === READ ? '' : ADVICE}`,
    );
  }
  throw new AppError('not_found', "Device doesn't exist");
}

async function edit(cli: Cli, kind: Kind, owner: string, work: (found: Found) => DeviceMap): Promise<void> {
  const where = await place(cli, kind, [owner]);
  await change(cli, kind, where, (value) => ({ devices: work(foundIn(value)) }));
}

async function setKeys(
  cli: Cli,
  kind: Kind,
  { owner, name }: { readonly owner: string; readonly name: string },
  changes: Readonly<Record<string, string>>,
): Promise<void> {
  await edit(cli, kind, owner, (found) => ({
    ...found.devices,
    [name]: withKeys(own(found, name, 'modified for'), changes),
  }));
}
