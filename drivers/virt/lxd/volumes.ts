// Volumes of an instance as devices of the engine: nodes of block devices, or the file systems on them,
// which a running guest gets and loses at once.
import type { EngineClient } from '#src/client/client.ts';
import type { DeviceMap, StringMap } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import type { GuestVolume } from '../driver.ts';
import { changeDevices } from './change-instance.ts';
import { onVolume, rootAmong } from './root-volume.ts';

const PREFIX = 'volume-';

export function volumeDevices(volumes: readonly GuestVolume[]): DeviceMap {
  return Object.fromEntries(
    volumes.filter(({ isRoot }) => !isRoot).map((volume) => [`${PREFIX}${volume.volumeId}`, deviceOf(volume)]),
  );
}

function deviceOf({ hostPath, guestPath, mount }: GuestVolume): StringMap {
  if (!mount) return { type: 'unix-block', source: hostPath, path: guestPath };
  const format = mount.formats ? { 'lighter.served.format': 'true' } : {};
  return { type: 'disk', source: hostPath, path: mount.path, 'lighter.served': 'true', ...format };
}

/** `can`: the engine has the file systems of disks served. */
export function requireMounts(volumes: readonly GuestVolume[], can: boolean): void {
  if (can || volumes.every(({ mount }) => mount === undefined)) return;
  throw new AppError('unsupported', 'the container engine cannot mount volumes (lxd:volume_mount)');
}

export async function attachVolume(
  client: EngineClient,
  name: string,
  volume: GuestVolume,
  signal: AbortSignal,
): Promise<void> {
  await changeDevices(client, name, (devices) => ({ ...devices, ...volumeDevices([volume]) }), signal);
}

export async function detachVolume(
  client: EngineClient,
  name: string,
  volumeId: string,
  signal: AbortSignal,
): Promise<void> {
  await changeDevices(client, name, ({ [PREFIX + volumeId]: _gone, ...devices }) => devices, signal);
}

/** Makes these the only ones; a root among them is where it is now. */
export async function setVolumes(
  client: EngineClient,
  name: string,
  volumes: readonly GuestVolume[],
  signal: AbortSignal,
): Promise<void> {
  const isOther = ([device]: readonly [string, DeviceMap[string]]): boolean => !device.startsWith(PREFIX);
  const change = (devices: DeviceMap): DeviceMap => ({
    ...Object.fromEntries(Object.entries(devices).filter(isOther)),
    ...volumeDevices(volumes),
    ...rootDevice(devices, volumes),
  });
  await changeDevices(client, name, change, signal);
}

function rootDevice({ root }: DeviceMap, volumes: readonly GuestVolume[]): DeviceMap {
  const volume = rootAmong(volumes);
  if (!volume || !root) return {};
  return { root: onVolume(root, volume.hostPath, false) };
}
