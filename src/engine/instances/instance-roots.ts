// Roots of instances where they really lie: in their pool, or on a device of the host that a process serves (lighter.block).
import { rmdir } from 'node:fs/promises';
import { join, relative } from 'node:path';
import type { RuntimeDriver } from '#drivers/runtime/driver.ts';
import { isServed, ServedDisks } from '#drivers/devices/disk/served.ts';
import type { IdMapRange, MountedRoot } from '#drivers/storage/driver.ts';
import { sameIdMap, parseIdMapKey } from '#src/host/id-map.ts';
import { isStillThere, type ProcessLife } from '#src/host/process-life.ts';
import { fillDevice } from '#src/host/served/fill.ts';
import { lastWords, serveFileSystem, servedIn, stopServing } from '#src/host/served/served-file-system.ts';
import { AppError } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { ConfigMap, DeviceMap } from '../types.ts';
import { rootDisks, type RootDisk } from './disks.ts';
import { hostName, type InstanceKey, ownedVolume, rootVolume } from './instance-paths.ts';
import type { Life } from './supervisor.ts';

const FOLDER = 'served';
const MAPPED = 'mapped';
const WATCH_MS = 1000;
const KILL_LIMIT_MS = 60_000;

export interface InstanceRoot extends MountedRoot {
  /** That the container has to be in to be let in. */
  readonly userNamespace?: string;
}

export interface RootOwner extends InstanceKey {
  readonly pool: string;
}

export interface RootWanted {
  readonly expanded: { readonly config: ConfigMap; readonly devices: DeviceMap };
  readonly idMap: IdMapRange | null;
}

interface Watched {
  readonly server: ProcessLife;
  readonly key: InstanceKey;
  readonly life: Life;
}

/** The path on the host of what the root lies on; undefined: it lies in its pool. */
export function blockOf(devices: DeviceMap): string | undefined {
  return rootDisks(devices)[0]?.block;
}

export class InstanceRoots {
  readonly #context: EngineContext;
  readonly #runtime: Pick<RuntimeDriver, 'kill'>;
  readonly #watched = new Map<number, Watched>();
  #timer: NodeJS.Timeout | undefined;

  readonly #disks: ServedDisks;

  constructor(context: EngineContext, runtime: Pick<RuntimeDriver, 'kill'>) {
    this.#disks = new ServedDisks({ ...context, servedPath: context.paths.servedDisks });
    this.#context = context;
    this.#runtime = runtime;
  }

  /** Idempotent. The mount outlives this process. */
  async mount(record: RootOwner, { expanded, idMap }: RootWanted, signal: AbortSignal): Promise<InstanceRoot> {
    const [disk] = rootDisks(expanded.devices);
    if (disk?.block !== undefined) return this.#serve(record, { ...disk, block: disk.block }, idMap, signal);
    const storage = this.#context.pools.driver(record.pool);
    return storage.mountVolume(ownedVolume(record, expanded.config), idMap, signal);
  }

  /**
   * The same root for a container that is restored: liblxc then leaves its ids as they are, where it maps them at a start. Needed until the
   * container runs; unmount() ends it as well.
   */
  async map(record: RootOwner, root: InstanceRoot, idMap: IdMapRange | null): Promise<InstanceRoot> {
    const { rootfsOptions, ...others } = root;
    if (rootfsOptions === undefined || !idMap) return root;
    const { host } = this.#context;
    const rootfsPath = this.#mapped(record);
    await host.makeDirectory(rootfsPath, { mode: 0o711 });
    await host.mounts.unmount(rootfsPath);
    await host.mounts.bindMapped(root.rootfsPath, rootfsPath, idMap);
    return { ...others, rootfsPath };
  }

  /** Absent is success. */
  async unmap(record: RootOwner): Promise<void> {
    const { host } = this.#context;
    const place = this.#mapped(record);
    if (!(await host.exists(place))) return;
    await host.mounts.unmount(place);
    // Not a tree: should something be mounted there, it is a root.
    await rmdir(place);
  }

  #mapped(key: InstanceKey): string {
    return join(this.#context.paths.root, MAPPED, hostName(key));
  }

  /**
   * The user namespace that the container is to be in, for disks that are served before it is there; undefined: it has none. `root`: mounted
   * when that has one.
   */
  async namespaceFor(
    record: InstanceKey,
    { expanded, idMap }: RootWanted,
    root: () => Promise<InstanceRoot>,
  ): Promise<string | undefined> {
    if (!Object.values(expanded.devices).some(isServed)) return undefined;
    if (blockOf(expanded.devices) !== undefined) return (await root()).userNamespace;
    return this.#disks.namespaceOf(hostName(record), idMap);
  }

  /** Idempotent; absent is success. What was written to a device is there when it resolves, and nobody has it open. */
  async unmount(record: RootOwner, signal: AbortSignal): Promise<void> {
    await this.unmap(record);
    await this.#disks.close(hostName(record));
    await stopServing(this.#context, this.#directory(record));
    await this.#context.pools.driver(record.pool).unmountVolume(rootVolume(record), signal);
  }

  /** Bytes in use on the device of a running instance; undefined: it has none, or is not running. */
  async usedBytes(record: InstanceKey): Promise<number | undefined> {
    const { host } = this.#context;
    const found = await servedIn(host, this.#directory(record));
    return found ? (await host.usage(found.target)).usedBytes : undefined;
  }

  /** Makes a file system with what is in the tree, by the ids of the instance. */
  async fill(record: InstanceKey, { block, tree, idMap }: FillWanted, signal: AbortSignal): Promise<void> {
    await this.#withSource(record, block, async (source) => {
      const request = { source, directory: this.#directory(record), idMap: ownIds(idMap) };
      const { rootfsPath: path, owners } = tree;
      await fillDevice(this.#context, { ...request, tree: { path, owners } }, signal);
    });
  }

  async #serve(
    record: InstanceKey,
    { block, fill }: RootDisk & { readonly block: string },
    idMap: IdMapRange | null,
    signal: AbortSignal,
  ): Promise<InstanceRoot> {
    const { host } = this.#context;
    if (fill)
      throw new AppError(
        'invalid',
        `The root of the instance, "${block}", was never filled: create the instance again`,
      );
    const ids = ownIds(idMap);
    const directory = this.#directory(record);
    const found = await servedIn(host, directory);
    const isOurs = found !== undefined && sameIdMap(parseIdMapKey(found.ids), ids);
    const { target, userNamespace } = isOurs
      ? found
      : await this.#withSource(record, block, (source) =>
          serveFileSystem(this.#context, { source, directory, idMap: ids }, signal),
        );
    return { rootfsPath: target, owners: ids, userNamespace };
  }

  /** In a project whose disks must come from somewhere, whoever writes there may put links there. */
  async #withSource<T>({ project }: InstanceKey, block: string, use: (source: string) => Promise<T>): Promise<T> {
    const { gate, host, paths } = this.#context;
    await host.makeDirectory(join(paths.root, FOLDER), { mode: 0o711 });
    const parent = gate.sourceParent(project, block);
    if (parent === undefined) return use(block);
    using held = await host.mounts.openBeneath(parent, relative(parent, block) || '.');
    if (!held) throw new AppError('not_found', `There is no device or file "${block}"`);
    return await use(held.path);
  }

  /** From now on the end of the server is the end of the container, which could do nothing without its files. */
  async watch(record: InstanceKey & { readonly id: number }, life: Life, devices: DeviceMap): Promise<void> {
    if (blockOf(devices) === undefined) return;
    const { project, name } = record;
    const found = await servedIn(this.#context.host, this.#directory(record));
    const server = found?.server ?? { pid: -1, startTime: '' };
    this.#watched.set(record.id, { server, key: { project, name }, life });
    this.#timer ??= setInterval(() => this.#look(), WATCH_MS).unref();
  }

  #look(): void {
    for (const [id, watched] of this.#watched) {
      if (!watched.life.gone && isStillThere(watched.server)) continue;
      this.#watched.delete(id);
      if (!watched.life.gone) void this.#lost(watched);
    }
    if (this.#watched.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  async #lost({ key, life }: Watched): Promise<void> {
    const { log } = this.#context;
    const said = await lastWords(this.#directory(key));
    log.error('the server of the root file system ended, and so does the instance', { instance: key.name, said });
    try {
      await this.#runtime.kill(life.container, AbortSignal.timeout(KILL_LIMIT_MS));
    } catch (error) {
      log.error('an instance without its root cannot be ended', { instance: key.name, error });
    }
  }

  /** No one is told any more; servers go on. */
  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#watched.clear();
  }

  /** Takes away what a killed daemon left of instances other than these. */
  async sweep(instances: readonly InstanceKey[]): Promise<void> {
    const { host, paths, log } = this.#context;
    const known = new Set(instances.map(hostName));
    await this.#disks.closeOthers(known);
    for (const name of await host.list(join(paths.root, FOLDER))) {
      if (known.has(name)) continue;
      await stopServing(this.#context, join(paths.root, FOLDER, name)).catch((error: unknown) =>
        log.warn('a device was left in use', { name, error }),
      );
    }
  }

  #directory(key: InstanceKey): string {
    return join(this.#context.paths.root, FOLDER, hostName(key));
  }
}

interface FillWanted {
  readonly block: string;
  readonly tree: MountedRoot;
  readonly idMap: IdMapRange | null;
}

function ownIds(idMap: IdMapRange | null): IdMapRange {
  if (idMap) return idMap;
  throw new AppError('invalid', 'The root of a privileged instance cannot be a device of the host (lighter.block)');
}
