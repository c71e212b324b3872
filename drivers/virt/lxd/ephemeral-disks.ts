// Ephemeral disks of an instance: a custom volume of the engine each, beside the root in its pool, mounted where cloud-init would.
import type { EngineClient } from '#src/client/client.ts';
import type { VolumeKey } from '#src/client/storage-volumes.ts';
import type { DeviceMap, StringMap } from '#src/client/wire.ts';
import { kindOf } from '#src/lib/errors.ts';
import type { Reverter } from '#src/lib/reverter.ts';
import type { SpawnFlavor } from '../driver.ts';
import { UUID_MARK } from './marks.ts';

const UNDO_LIMIT_MS = 120_000;
const DEVICE = /^ephemeral(?<index>\d{1,3})$/;

/** Of an instance, as its devices tell. */
export interface EphemeralDisk extends VolumeKey {
  readonly index: number;
}

export interface EphemeralPlace {
  readonly client: EngineClient;
  readonly pool: string;
  /** The pool can hold volumes to their size. */
  readonly rootQuota: boolean;
}

/** The first is where a virtual machine's cloud-init mounts it; the others have no custom, and are below it. */
function pathOf(index: number): string {
  return index === 0 ? '/mnt' : `/mnt/ephemeral${index}`;
}

export function diskOf({ pool }: Pick<EphemeralPlace, 'pool'>, uuid: string, index: number): EphemeralDisk {
  return { pool, name: `ephemeral${index}-${uuid}`, index };
}

export function ephemeralDevices(disks: readonly EphemeralDisk[]): DeviceMap {
  const device = ({ pool, name, index }: EphemeralDisk): StringMap => ({
    type: 'disk',
    pool,
    source: name,
    path: pathOf(index),
  });
  return Object.fromEntries(disks.map((disk) => [`ephemeral${disk.index}`, device(disk)]));
}

/** In order. What merely is called so is none. */
export function ephemeralDisks(devices: DeviceMap, uuid: string): readonly EphemeralDisk[] {
  const disks = Object.entries(devices).flatMap(([device, { type, pool, source }]) => {
    const index = Number(DEVICE.exec(device)?.groups?.['index'] ?? Number.NaN);
    if (type !== 'disk' || pool === undefined || source !== `ephemeral${index}-${uuid}`) return [];
    return [{ pool, name: source, index }];
  });
  return disks.toSorted((left, right) => left.index - right.index);
}

export function withoutEphemerals(devices: DeviceMap, uuid: string): DeviceMap {
  const ours = new Set(ephemeralDisks(devices, uuid).map(({ index }) => `ephemeral${index}`));
  return Object.fromEntries(Object.entries(devices).filter(([device]) => !ours.has(device)));
}

export function ephemeralConfig({ rootQuota }: EphemeralPlace, uuid: string, gib: number | undefined): StringMap {
  return { [UUID_MARK]: uuid, ...(rootQuota && gib !== undefined && { size: `${gib}GiB` }) };
}

/** Of an instance that is not there yet; what an earlier try left goes first. Made ones are on `revert`. */
export async function makeEphemerals(
  place: EphemeralPlace,
  { uuid, flavor, revert }: { readonly uuid: string; readonly flavor: SpawnFlavor; readonly revert: Reverter },
  signal: AbortSignal,
): Promise<DeviceMap> {
  const disks = flavor.ephemeralsGib.map((gib, index) => ({ ...diskOf(place, uuid, index), gib }));
  for (const disk of disks) await make(place, { uuid, disk, revert }, signal);
  return ephemeralDevices(disks);
}

type SizedDisk = EphemeralDisk & { readonly gib: number };

async function make(
  place: EphemeralPlace,
  { uuid, disk, revert }: { readonly uuid: string; readonly disk: SizedDisk; readonly revert: Reverter },
  signal: AbortSignal,
): Promise<void> {
  const { client } = place;
  await clearDisk(place, uuid, disk, signal);
  // a request that nobody waits for any more may make it all the same
  revert.add('ephemeral disk', () => clearDisk(place, uuid, disk, AbortSignal.timeout(UNDO_LIMIT_MS)));
  await client.storageVolumes.create(disk, ephemeralConfig(place, uuid, disk.gib), signal);
}

/** What is there of that name, when it is this instance's: a volume of somebody else stays. */
export async function clearDisk(
  { client }: Pick<EphemeralPlace, 'client'>,
  uuid: string,
  disk: EphemeralDisk,
  signal: AbortSignal,
): Promise<void> {
  const present = await client.storageVolumes.find(disk, signal);
  if (present?.config[UUID_MARK] === uuid) await removeDisks(client, [disk], signal);
}

/**
 * For another flavor: those that are missing are made, others get their sizes. Returns the devices, and what is left over, to be
 * removed when no instance has it any more.
 */
export async function fitEphemerals(
  place: EphemeralPlace,
  present: readonly EphemeralDisk[],
  making: { readonly uuid: string; readonly flavor: SpawnFlavor; readonly revert: Reverter },
  signal: AbortSignal,
): Promise<{ readonly devices: DeviceMap; readonly surplus: readonly EphemeralDisk[] }> {
  const { uuid, flavor } = making;
  const fitted: EphemeralDisk[] = [];
  for (const [index, gib] of flavor.ephemeralsGib.entries()) {
    const known = present.find((disk) => disk.index === index);
    const disk = { ...(known ?? diskOf(place, uuid, index)), gib };
    await (known ? setSize(place, uuid, disk, signal) : make(place, { ...making, disk }, signal));
    fitted.push(disk);
  }
  const surplus = present.filter(({ index }) => index >= flavor.ephemeralsGib.length);
  return { devices: ephemeralDevices(fitted), surplus };
}

/** No request that changes anything when it is so already. */
async function setSize(place: EphemeralPlace, uuid: string, disk: SizedDisk, signal: AbortSignal): Promise<void> {
  const wanted = ephemeralConfig(place, uuid, disk.gib);
  const { config = {} } = (await place.client.storageVolumes.find(disk, signal)) ?? {};
  if (wanted['size'] === undefined || config['size'] === wanted['size']) return;
  await place.client.storageVolumes.patch(disk, wanted, signal);
}

/** Absent is success. */
export async function removeDisks(
  client: EngineClient,
  disks: readonly VolumeKey[],
  signal: AbortSignal,
): Promise<void> {
  for (const disk of disks) {
    await client.storageVolumes.remove(disk, signal).catch((error: unknown) => {
      if (kindOf(error) !== 'not_found') throw error;
    });
  }
}

/** Of no instance that is there: what a killed process, or a deletion that was cut short, has left. Returns their names. */
export async function removeStrayEphemerals(
  { client, pool }: Pick<EphemeralPlace, 'client' | 'pool'>,
  isStray: (uuid: string) => boolean,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const volumes = await client.storageVolumes.list(pool, signal);
  const strays = volumes.filter(({ name, config, used_by: users }) => {
    const uuid = config[UUID_MARK];
    return uuid !== undefined && /^ephemeral\d+-/.test(name) && (users ?? []).length === 0 && isStray(uuid);
  });
  const disks = strays.map(({ name }) => ({ pool, name }));
  await removeDisks(client, disks, signal);
  return disks.map(({ name }) => name);
}
