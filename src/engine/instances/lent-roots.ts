// Roots of stopped instances as disks of others: a disk device with a pool and the source `container/NAME` (API extension
// lighter_disk_instance_root). While the other one runs, its own instance cannot: two mounts of one root do not know of each other.
import type { DeviceVolumes, VolumeSource } from '#drivers/devices/driver.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import { AppError } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { SharedVolumes } from '../volumes/shared-volumes.ts';
import { refuseOnBlock } from './block-rules.ts';
import { lockKey, rootVolume } from './instance-paths.ts';
import type { Supervisor } from './supervisor.ts';

const PREFIX = 'container/';
const CLOSE_LIMIT_MS = 60_000;

export interface LendingParts {
  readonly context: Pick<EngineContext, 'database' | 'host' | 'locks' | 'pools' | 'volumes'>;
  readonly supervisor: Pick<Supervisor, 'status'>;
}

/** Whether a device is the root of another instance. */
export function isLentRoot(device: Readonly<Record<string, string>>): boolean {
  return device['type'] === 'disk' && (device['pool'] ?? '') !== '' && (device['source'] ?? '').startsWith(PREFIX);
}

/** Whether another instance has the root of this one mounted, or may be about to. */
export function isLent(parts: LendingParts, record: InstanceRecord): boolean {
  return usersOf(parts, record).length > 0;
}

/** AppError 'conflict' while another instance has the root of this one mounted, or may be about to. Called by the holder of its lock. */
export function refuseLent(parts: LendingParts, record: InstanceRecord): void {
  const [user] = usersOf(parts, record);
  if (user)
    throw new AppError('conflict', `The root of instance "${record.name}" is in use by instance "${user.name}"`);
}

/** Where disks of instances come from that are no paths of the host: custom volumes, and roots of other instances. */
export class DiskSources implements DeviceVolumes {
  readonly #parts: LendingParts;
  readonly #shared: SharedVolumes;

  constructor(parts: LendingParts) {
    this.#parts = parts;
    const { context, supervisor } = parts;
    this.#shared = new SharedVolumes({ context, isRunning: (id) => supervisor.status(id) !== 'Stopped' });
  }

  async open(source: VolumeSource, idMap: IdMapRange | null, signal: AbortSignal) {
    const { context, supervisor } = this.#parts;
    if (!source.name.startsWith(PREFIX)) return this.#shared.open(source, idMap, signal);
    const record = this.#find(source);
    if (!record) {
      const name = source.name.slice(PREFIX.length);
      throw new AppError('not_found', `No instance "${name}" has its root in storage pool "${source.pool}"`);
    }
    refuseOnBlock(record, 'a disk of another instance');
    // One that is being worked on may be on its way to run.
    if (supervisor.status(record.id) !== 'Stopped' || context.locks.isBusy(lockKey(record))) {
      throw new AppError(
        'conflict',
        `Instance "${record.name}" is running or busy: its root cannot be a disk of another`,
      );
    }
    const others = usersOf(this.#parts, record).filter(({ name }) => name !== source.instance);
    if (others[0]) throw new AppError('conflict', `The root of "${record.name}" is in use by "${others[0].name}"`);
    const storage = context.pools.driver(record.pool);
    const { rootfsPath: path, rootfsOptions } = await storage.mountVolume(rootVolume(record), idMap, signal);
    return { path, idMap: rootfsOptions === undefined ? null : idMap };
  }

  async close(source: VolumeSource): Promise<void> {
    const { context, supervisor } = this.#parts;
    if (!source.name.startsWith(PREFIX)) return this.#shared.close(source);
    const record = this.#find(source);
    if (!record) return;
    if (supervisor.status(record.id) !== 'Stopped' || context.locks.isBusy(lockKey(record))) return; // its mount is its own
    if (usersOf(this.#parts, record).some(({ name }) => name !== source.instance)) return;
    await context.pools.driver(record.pool).unmountVolume(rootVolume(record), AbortSignal.timeout(CLOSE_LIMIT_MS));
  }

  #find({ project, pool, name }: VolumeSource): InstanceRecord | undefined {
    const record = this.#parts.context.database.instances.find(project, name.slice(PREFIX.length));
    return record?.pool === pool ? record : undefined;
  }
}

/** Of instances that run, or that somebody works on: those may be starting. */
function usersOf({ context, supervisor }: LendingParts, record: InstanceRecord): readonly InstanceRecord[] {
  const { database, locks } = context;
  const source = `${PREFIX}${record.name}`;
  return database.instances.withSource(record.project, source).filter((other) => {
    const uses = Object.values(other.devices).some(
      (device) => isLentRoot(device) && device['source'] === source && device['pool'] === record.pool,
    );
    return uses && (supervisor.status(other.id) !== 'Stopped' || locks.isBusy(lockKey(other)));
  });
}
