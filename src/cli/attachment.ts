// Devices that stand for something of the engine, a volume or a network: put on instances and profiles, and taken off.
import type { EngineClient } from '#src/client/client.ts';
import type { DeviceMap } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Cli } from './cli.ts';
import { change, type Kind, type Place } from './resource.ts';

type Device = DeviceMap[string];
type Fields = Readonly<Record<string, unknown>>;

interface Owner {
  readonly client: EngineClient;
  /** Name of the instance or profile, on the same engine. */
  readonly owner: string;
}

function placeOf(kind: Kind, { client, owner }: Owner): Place {
  return { client, names: [owner], path: kind.path([owner]) };
}

function devicesOf({ devices }: Fields): DeviceMap {
  return (devices ?? {}) as DeviceMap;
}

export async function attachDevice(
  cli: Cli,
  kind: Kind,
  { name, device, ...owner }: Owner & { readonly name: string; readonly device: Device },
): Promise<void> {
  await change(cli, kind, placeOf(kind, owner), (value) => {
    const devices = devicesOf(value);
    if (devices[name]) throw new AppError('conflict', `Device already exists: ${name}`);
    return { devices: { ...devices, [name]: device } };
  });
}

export async function detachDevice(
  cli: Cli,
  kind: Kind,
  {
    name,
    what,
    matches,
    ...owner
  }: Owner & {
    readonly name: string | undefined;
    /** For messages. */
    readonly what: string;
    readonly matches: (device: Device) => boolean;
  },
): Promise<void> {
  await change(cli, kind, placeOf(kind, owner), (value) => {
    const devices = devicesOf(value);
    const found = name ?? onlyMatch(devices, matches, what);
    const device = devices[found];
    if (!device) throw new AppError('not_found', "The specified device doesn't exist");
    if (!matches(device)) throw new AppError('invalid', `The specified device doesn't match the ${what}`);
    return { devices: Object.fromEntries(Object.entries(devices).filter(([other]) => other !== found)) };
  });
}

function onlyMatch(devices: DeviceMap, matches: (device: Device) => boolean, what: string): string {
  const [found, another] = Object.entries(devices).filter(([, device]) => matches(device));
  if (!found) throw new AppError('not_found', `No device found for this ${what}`);
  if (another) throw new AppError('invalid', 'More than one device matches, specify the device name');
  return found[0];
}
