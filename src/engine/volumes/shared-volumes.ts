// Custom volumes as disks of instances: each container sees the owners of the files through its own map. Where the kernel cannot do that, the
// files belong to one map at a time: that of the containers which have the volume. Another one waits until they have stopped.
import type { DeviceVolumes, VolumeSource } from '#drivers/devices/driver.ts';
import type { IdMapRange, MountedRoot } from '#drivers/storage/driver.ts';
import { idMapKey, sameIdMap } from '#src/host/id-map.ts';
import { AppError } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { VolumeRecord } from '../db/records.ts';
import { hostName } from '../instances/instance-paths.ts';
import { parseBoolean } from '../instances/values.ts';
import { refOf } from './volume-places.ts';
import { becoming, setOwners } from './volume-owners.ts';
import { isOfServer, usingInstances } from './volume-users.ts';

type Context = Pick<EngineContext, 'database' | 'host' | 'locks' | 'pools' | 'volumes'>;

export interface SharingParts {
  readonly context: Context;
  readonly isRunning: (instanceId: number) => boolean;
}

/** Where the files are, and the map through which the container is to see them; null: as they are. */
interface Opened {
  readonly path: string;
  readonly idMap: IdMapRange | null;
}

interface User {
  readonly instance: string;
  readonly idMap: IdMapRange | null;
}

export class SharedVolumes implements DeviceVolumes {
  readonly #parts: SharingParts;
  /** Id of the volume → instances that opened it → the maps that they have. */
  readonly #users = new Map<number, Map<string, string>>();

  constructor(parts: SharingParts) {
    this.#parts = parts;
  }

  async open(source: VolumeSource, idMap: IdMapRange | null, signal: AbortSignal): Promise<Opened> {
    const { volumes } = this.#parts.context;
    const volume = this.#get(source);
    const user = { instance: instanceOf(source), idMap };
    const users = this.#usersOf(volume);
    const before = users.get(user.instance);
    users.set(user.instance, idMapKey(idMap)); // first: nobody changes the owners from here on without asking us
    try {
      const found = await this.#mounted(volume, signal);
      if (parseBoolean(volume.config['security.unmapped'])) return { path: found.rootfsPath, idMap: null };
      return (
        (await this.#fitting(volume, found, idMap)) ??
        (await volumes.locked(volume, signal, () => this.#adapt(volumes.get(volume), user, signal)))
      );
    } catch (error) {
      if (before === undefined) this.#forget(volume, user.instance);
      throw error;
    }
  }

  /** Nothing is unmounted: the next who opens it finds it as it is. */
  async close(source: VolumeSource): Promise<void> {
    const { database, volumes } = this.#parts.context;
    const { pool, name } = source;
    const volume = database.volumes.find({ pool, project: volumes.holder(source.project), name });
    if (volume) this.#forget(volume, instanceOf(source));
    await Promise.resolve();
  }

  #get({ project, pool, name }: VolumeSource): VolumeRecord {
    const { volumes } = this.#parts.context;
    return volumes.get({ pool, project: volumes.holder(project), name });
  }

  #usersOf({ id }: VolumeRecord): Map<string, string> {
    const users = this.#users.get(id) ?? new Map<string, string>();
    this.#users.set(id, users);
    return users;
  }

  #forget(volume: VolumeRecord, instance: string): void {
    const users = this.#usersOf(volume);
    users.delete(instance);
    if (users.size === 0) this.#users.delete(volume.id);
  }

  /** As it is on the disk; not while the owners are being changed. */
  #mounted(volume: VolumeRecord, signal: AbortSignal): Promise<MountedRoot> {
    const { pools } = this.#parts.context;
    const work = () => pools.driver(volume.pool).mountVolume({ ...refOf(volume), forReading: true }, null, signal);
    return this.#alone(volume, work, signal);
  }

  #alone<T>({ id }: VolumeRecord, work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    return this.#parts.context.locks.run(`owners of volume/${id}`, work, signal);
  }

  /** undefined: the owners are those of another map. */
  async #fitting(
    volume: VolumeRecord,
    { rootfsPath: path, owners }: MountedRoot,
    idMap: IdMapRange | null,
  ): Promise<Opened | undefined> {
    const isShifted = parseBoolean(volume.config['security.shifted']);
    if (sameIdMap(owners, idMap) && !(isShifted && idMap !== null)) return { path, idMap: null };
    const canMap = idMap !== null && (await this.#parts.context.host.mounts.canMapIds(path));
    if (canMap) return owners === null ? { path, idMap } : undefined;
    // Others may see it through other maps at any time.
    if (isShifted && idMap !== null)
      throw new AppError('unsupported', "idmapping abilities are required but aren't supported on system");
    return undefined;
  }

  /** The lock of the volume is held. */
  async #adapt(volume: VolumeRecord, user: User, signal: AbortSignal): Promise<Opened> {
    const { database, pools, volumes } = this.#parts.context;
    const { idMap } = user;
    return this.#alone(
      volume,
      async () => {
        this.#refuseOthers(volume, user);
        const { id, description, config } = volume;
        database.volumes.update(id, { description, config: becoming(config, idMap) });
        const root = await pools.driver(volume.pool).mountVolume(refOf(volume), idMap, signal);
        setOwners(this.#parts.context, volumes.get(volume), root.owners);
        const opened = await this.#fitting(volume, root, idMap);
        if (opened) return opened;
        throw new AppError('unsupported', `The owners of the files in volume "${volume.name}" cannot be changed`);
      },
      signal,
    );
  }

  /** AppError 'conflict' with LXD's text while somebody has it who sees it otherwise. */
  #refuseOthers(volume: VolumeRecord, { instance, idMap }: User): void {
    const { context, isRunning } = this.#parts;
    const users = this.#usersOf(volume);
    const other = usingInstances(context, volume).find((one) => {
      const map = users.get(hostName(one));
      return hostName(one) !== instance && (map === undefined ? isRunning(one.id) : map !== idMapKey(idMap));
    });
    const { name } = volume;
    if (other) {
      const text = `Idmaps of container "${other.name}" and storage volume "${name}" are not identical`;
      throw new AppError('conflict', text);
    }
    if (isOfServer(context, volume)) throw new AppError('conflict', `Storage volume "${name}" is used by the server`);
  }
}

function instanceOf({ project, instance }: VolumeSource): string {
  return hostName({ project, name: instance });
}
