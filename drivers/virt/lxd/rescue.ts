// Rescue: a guest of another image in the place of a stopped one, which it has below /mnt/rescue. The stopped one is not touched: it has
// its name, its configuration and its root all the while, so that the way back is to remove the other one. Which of the two
// stands for the instance says a mark on the rescue guest, so that nothing is lost with this process.
import type { DeviceMap, Instance } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { POWER_STATE, type SpawnHooks, type SpawnSpec } from '../driver.ts';
import { DRIVE_DISK } from './drive-disks.ts';
import { stateConflict } from './engine-calls.ts';
import { rescuedName, rescueMark, rescueName } from './marks.ts';
import { powerStateOf } from './power-state.ts';
import { isOnVolume } from './root-volume.ts';
import { type SpawnContext, spawnGuest } from './spawn.ts';

/** Where the rescue guest has the root of the other one. */
const RESCUED_ROOT = '/mnt/rescue';

export async function rescue(
  context: SpawnContext,
  spec: SpawnSpec,
  hooks: SpawnHooks,
  signal: AbortSignal,
): Promise<void> {
  const { directory, calls, setup } = context;
  const { uuid } = spec;
  if (!setup.lendsRoots)
    throw new AppError('unsupported', 'the container engine cannot show a root to another container');
  await calls.removeOwedOf(uuid, signal);
  const rescued = await directory.get(uuid, signal);
  if (rescuedName(rescued) !== undefined) throw stateConflict(uuid, 'is rescued already');
  if (powerStateOf(rescued.status_code) !== POWER_STATE.shutdown) throw stateConflict(uuid, 'runs');
  if (isOnVolume(rescued.devices['root'])) throw new AppError('unsupported', 'a root on a volume cannot be rescued');
  const name = rescueName(uuid);
  await using revert = new Reverter(context.log);
  // The config drive is the instance's, and not to be written anew or removed for this.
  const guest = hooks.guest && (async (limit: AbortSignal) => withoutDrive(await hooks.guest?.(limit)));
  await spawnGuest(
    context,
    {
      spec: { ...spec, name, flavor: { ...spec.flavor, ephemeralsGib: [] } },
      revert,
      config: rescueMark(rescued.name),
      devices: devicesOf(rescued),
    },
    { ...hooks, ...(guest && { guest }) },
    signal,
  );
  revert.commit();
  directory.remember(uuid, name);
}

/** True when there was one. */
export async function unrescue(
  { directory, calls }: Pick<SpawnContext, 'directory' | 'calls'>,
  uuid: string,
  signal: AbortSignal,
): Promise<boolean> {
  await calls.removeOwedOf(uuid, signal);
  if (directory.nameOf(uuid) !== undefined && directory.nameOf(uuid) !== rescueName(uuid)) return false;
  const found = await directory.find(uuid, signal);
  const name = found && rescuedName(found);
  if (!found || name === undefined) return false;
  await calls.remove(found.name, uuid, signal);
  directory.remember(uuid, name);
  return true;
}

type GuestHook = NonNullable<SpawnHooks['guest']>;

function withoutDrive(data: Awaited<ReturnType<GuestHook>> | undefined): Awaited<ReturnType<GuestHook>> {
  if (!data) throw new AppError('internal', 'a guest is told nothing');
  return { ...data, configDrive: null };
}

function devicesOf({ name, devices }: Instance): DeviceMap {
  const root = Object.values(devices).find(({ type, path }) => type === 'disk' && path === '/');
  if (!root?.['pool']) throw new AppError('internal', `the root of ${name} is in no pool that is known`);
  const old = { type: 'disk', pool: root['pool'], source: `container/${name}`, path: RESCUED_ROOT };
  const drive = Object.entries(devices).filter(([device]) => device === 'config-drive' || device === DRIVE_DISK);
  return { 'rescued-root': old, ...Object.fromEntries(drive) };
}
