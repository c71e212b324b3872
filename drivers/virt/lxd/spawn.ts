// A spawn: image and network side by side, then the instance; all undone when any of it fails.
import type { DeviceMap, InstancesPost, StringMap } from '#src/client/wire.ts';
import type { Host } from '#src/host/host.ts';
import { AppError, kindOf } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import {
  DiskTooSmallError,
  type GuestData,
  type GuestVolume,
  type SpawnHooks,
  type SpawnImage,
  type SpawnNic,
  type SpawnSpec,
} from '../driver.ts';
import type { Directory } from './directory.ts';
import type { EngineCalls } from './engine-calls.ts';
import { type EquipContext, equip } from './equip.ts';
import { type ImageCache, isUnpackFailure } from './image-cache.ts';
import { makeEphemerals } from './ephemeral-disks.ts';
import { instanceBody } from './instance-body.ts';
import { inspectVolume, onVolume, rootAmong } from './root-volume.ts';
import type { EngineSetup } from './setup.ts';
import { requireMounts } from './volumes.ts';

const UNDO_LIMIT_MS = 300_000;
const GIB = 1024 ** 3;

export interface SpawnContext extends EquipContext {
  readonly directory: Directory;
  readonly calls: EngineCalls;
  readonly images: ImageCache;
  /** This machine: where volumes are looked at. */
  readonly host: Host;
  readonly setup: EngineSetup;
  readonly profiles: readonly string[];
}

export async function spawn(
  context: SpawnContext,
  spec: SpawnSpec,
  hooks: SpawnHooks,
  signal: AbortSignal,
): Promise<void> {
  const { directory, log } = context;
  context.calls.forgive(spec.uuid);
  await refuseExisting(context, spec, signal);
  await using revert = new Reverter(log);
  await spawnGuest(context, { spec, revert }, hooks, signal);
  revert.commit();
  directory.remember(spec.uuid, spec.name);
}

export interface Making {
  readonly spec: SpawnSpec;
  readonly revert: Reverter;
  /** Beside what a guest of this spec has. */
  readonly config?: StringMap;
  readonly devices?: DeviceMap;
}

/** What it made is on `revert`. */
export async function spawnGuest(
  context: SpawnContext,
  making: Making,
  hooks: SpawnHooks,
  signal: AbortSignal,
): Promise<void> {
  const siblings = new AbortController();
  const either = AbortSignal.any([signal, siblings.signal]);
  const network = cancelling(siblings, hooks.network(either));
  const wired = cancelling(
    siblings,
    network.then(() => hooks.wired?.(either)),
  );
  const guest = cancelling(
    siblings,
    network.then(() => hooks.guest?.(either)),
  );
  const volumes = cancelling(siblings, Promise.resolve(hooks.volumes?.(either) ?? []));
  const { rootImage } = hooks;
  const instance = cancelling(siblings, create(context, { network, wired, guest, volumes, rootImage, making }, either));
  // All have ended before anything is undone; the one that failed first is the reason.
  await Promise.allSettled([network, wired, guest, volumes, instance]);
  signal.throwIfAborted();
  if (siblings.signal.aborted) throw (siblings.signal.reason as Error).cause;
}

/** The first of several that fails gives up the others. */
async function cancelling<T>(siblings: AbortController, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    siblings.abort(new AppError('internal', 'another step of the spawn failed', { cause: error }));
    throw error;
  }
}

async function refuseExisting(
  { client, directory }: SpawnContext,
  spec: SpawnSpec,
  signal: AbortSignal,
): Promise<void> {
  // Only what is known is looked up: a look for what is absent asks for all instances.
  if (directory.knows(spec.uuid) && (await directory.find(spec.uuid, signal)))
    throw new AppError('conflict', `instance ${spec.uuid} exists already`);
  if (await client.instances.find(spec.name, signal)) {
    throw new AppError('conflict', `the engine has an instance named ${spec.name} already`);
  }
}

interface Work {
  readonly network: Promise<readonly SpawnNic[]>;
  readonly wired: Promise<void>;
  readonly guest: Promise<GuestData | undefined>;
  readonly volumes: Promise<readonly GuestVolume[]>;
  readonly rootImage: SpawnHooks['rootImage'];
  readonly making: Making;
}

/** What the root of a new instance is made of. */
interface Root {
  /** null: it is on the device already. */
  readonly image: (SpawnImage & { readonly fingerprint: string }) | null;
  /** Its disk, given what every root disk of the flavor has. */
  readonly disk: (disk: StringMap) => StringMap;
}

/** The root file system is made while Neutron works: what is left to do at the end is the start. */
async function create(context: SpawnContext, work: Work, signal: AbortSignal): Promise<void> {
  const { calls, setup, profiles } = context;
  const { network, wired, guest, volumes, making } = work;
  const { spec, revert } = making;
  const { uuid, flavor } = spec;
  const { image, disk } = await rootOf(context, work, signal);
  const place = { ...setup, client: context.client };
  const ephemerals = await makeEphemerals(place, { uuid, flavor, revert }, signal);
  revert.add('instance', () => calls.undoSpawn(spec.name, spec.uuid, AbortSignal.timeout(UNDO_LIMIT_MS)));
  const source = image ? ({ type: 'image', fingerprint: image.fingerprint } as const) : ({ type: 'none' } as const);
  const body = instanceBody({ ...spec, imageId: image?.id ?? '' }, [], { ...setup, source, profiles });
  const { config, devices } = making;
  const whole = {
    ...body,
    config: { ...body.config, ...config },
    devices: { ...body.devices, root: disk(body.devices?.['root'] ?? {}), ...ephemerals, ...devices },
  };
  if (image) await post(context, whole, image, signal);
  else await (await context.client.instances.create(whole, { signal })).wait(signal);
  const [nics, told, disks] = await Promise.all([network, guest, volumes]);
  requireMounts(disks, setup.servesDisks);
  await equip(context, { spec, revert }, { nics, guest: told, volumes: disks }, signal);
  await wired;
  await calls.setState(spec.name, { action: 'start', timeout: -1 }, signal);
}

async function rootOf(context: SpawnContext, { making, volumes, rootImage }: Work, signal: AbortSignal): Promise<Root> {
  const { spec } = making;
  const { images, host, setup } = context;
  if (spec.image) {
    const { fingerprint, diskBytes } = await images.ensure(spec.image, signal);
    requireRoom(spec, diskBytes);
    return { image: { ...spec.image, fingerprint }, disk: (disk) => disk };
  }
  const volume = rootAmong(await volumes);
  if (!volume) throw new AppError('invalid', 'there is neither an image nor a volume to boot from');
  if (!setup.rootsOnDevices) throw new AppError('unsupported', 'the container engine cannot boot from a volume');
  const onDevice = (fill: boolean) => (disk: StringMap) => onVolume(disk, volume.hostPath, fill);
  if ((await inspectVolume(host, volume.hostPath, signal)) === 'disk') return { image: null, disk: onDevice(false) };
  const image = (await rootImage?.(signal)) ?? null;
  if (!image) throw new AppError('invalid', 'the volume holds an archive, and Cinder does not tell where it ends');
  const { fingerprint } = await images.ensure(image, signal);
  return { image: { ...image, fingerprint }, disk: onDevice(true) };
}

/** A root disk of 0 has whatever the image needs. */
function requireRoom({ flavor: { rootGib } }: SpawnSpec, diskBytes: number | null): void {
  const flavorBytes = rootGib * GIB;
  if (rootGib === 0 || diskBytes === null || diskBytes <= flavorBytes) return;
  throw new DiskTooSmallError({ flavorBytes, imageBytes: diskBytes });
}

/** Creates; an image that vanished since it was looked up is fetched anew, one that cannot be unpacked is dropped. */
async function post(
  { client, images }: SpawnContext,
  body: InstancesPost,
  image: NonNullable<Root['image']>,
  signal: AbortSignal,
): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    const { fingerprint } = attempt === 1 ? image : await images.ensure(image, signal);
    try {
      const source = { type: 'image', fingerprint } as const;
      await (await client.instances.create({ ...body, source }, { signal })).wait(signal);
      return;
    } catch (error) {
      if (isMissingImage(error) && attempt === 1) continue;
      if (signal.aborted || !isUnpackFailure(error)) throw error;
      await images.forget(fingerprint);
      throw new AppError('invalid', `image ${image.id} cannot be unpacked`, { cause: error });
    }
  }
}

function isMissingImage(error: unknown): boolean {
  return kindOf(error) === 'not_found' && error instanceof Error && /image/i.test(error.message);
}
