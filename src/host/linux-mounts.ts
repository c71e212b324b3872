// Mounts on the real kernel: mount(2), id-mapped trees and the user namespaces that hold their maps.
import { readFile, writeFile } from 'node:fs/promises';
import { closeSync, constants, openSync } from 'node:fs';
import { once } from 'node:events';
import { dirname } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { Host } from './host.ts';
import { idMapKey, type IdMapRange, mapLines, NOBODYS_IDS } from './id-map.ts';
import {
  attachTree,
  isMountRoot,
  isOnReadonlyMount,
  KernelError,
  mapIds,
  mount,
  openBeneath,
  openTree,
  unmountDetached,
} from './kernel.ts';
import { parseMountInfo } from './mount-info.ts';
import { giveMount, takeMount } from './container-mounts.ts';
import type {
  DetachedTree,
  GivenMount,
  HeldPath,
  MountFlag,
  MountRequest,
  Mounts,
  TakenMount,
  UserNamespace,
} from './mounts.ts';

const FLAGS: Readonly<Record<MountFlag, number>> = {
  readonly: 1,
  nosuid: 2,
  nodev: 4,
  noexec: 8,
  sync: 16,
  remount: 32,
  dirsync: 128,
  noatime: 1024,
  nodiratime: 2048,
  bind: 4096,
  recursive: 16384,
  unbindable: 1 << 17,
  private: 1 << 18,
  slave: 1 << 19,
  shared: 1 << 20,
  relatime: 1 << 21,
  strictatime: 1 << 24,
};
const HELPER_LIMIT_MS = 10_000;

interface OpenNamespace extends UserNamespace {
  readonly fd: number;
}

export class LinuxMounts implements Mounts {
  readonly #host: Pick<Host, 'start'>;
  readonly #mapIds: boolean;
  readonly #namespaces = new Map<string, Promise<OpenNamespace>>();

  constructor(host: Pick<Host, 'start'>, mapIds: boolean) {
    this.#host = host;
    this.#mapIds = mapIds;
  }

  async mount({ source, target, type, flags = [], data }: MountRequest): Promise<void> {
    const bits = flags.reduce((sum, flag) => sum | FLAGS[flag], 0);
    try {
      await mount(source, target, { type, flags: bits, data: data ?? null });
    } catch (error) {
      throw new AppError('internal', `cannot mount ${source} (${type}) on ${target}: ${String(error)}`, {
        cause: error,
      });
    }
  }

  async unmount(target: string): Promise<void> {
    try {
      await unmountDetached(target);
    } catch (error) {
      // EINVAL: not a mount point.
      if (error instanceof KernelError && ['EINVAL', 'ENOENT', 'ENOTDIR'].includes(error.errno)) return;
      throw new AppError('internal', `cannot unmount ${target}: ${String(error)}`, { cause: error });
    }
  }

  async isMountPoint(path: string): Promise<boolean> {
    try {
      return await isMountRoot(path);
    } catch (error) {
      if (error instanceof KernelError && ['ENOENT', 'ENOTDIR'].includes(error.errno)) return false;
      throw error;
    }
  }

  async isReadonly(path: string): Promise<boolean> {
    try {
      return await isOnReadonlyMount(path);
    } catch (error) {
      // where it would be
      if (error instanceof KernelError && error.errno === 'ENOENT' && path !== '/')
        return this.isReadonly(dirname(path));
      throw error;
    }
  }

  async mountsUnder(path: string): Promise<readonly string[]> {
    const table = parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8'));
    const inside = table
      .map(({ target }) => target)
      .filter((target) => target === path || target.startsWith(`${path}/`));
    return inside.sort((a, b) => b.split('/').length - a.split('/').length);
  }

  async openBeneath(parent: string, path: string): Promise<HeldPath | undefined> {
    const parentFd = openSync(parent, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      const fd = await openBeneath(parentFd, path);
      return { path: `/proc/${process.pid}/fd/${fd}`, [Symbol.dispose]: () => closeSync(fd) };
    } catch (error) {
      const { errno } = error as Partial<KernelError>;
      if (errno === 'ENOENT' || errno === 'ENOTDIR') return undefined;
      if (errno !== 'EXDEV' && errno !== 'ELOOP') throw error;
      throw new AppError('forbidden', `${path} leads out of ${parent}`, { cause: error });
    } finally {
      closeSync(parentFd);
    }
  }

  /** Tried each time: it takes less than a millisecond, and device numbers, which one could remember it by, are used again. */
  async canMapIds(path: string): Promise<boolean> {
    try {
      closeSync(await this.#mappedTree(path, NOBODYS_IDS));
      return true;
    } catch {
      return false; // whatever the reason: without it every driver has another way
    }
  }

  async bindMapped(source: string, target: string, map: IdMapRange): Promise<void> {
    const fd = await this.#mappedTree(source, map);
    try {
      await attachTree(fd, target);
    } catch (error) {
      throw new AppError('internal', `cannot bind ${source} on ${target}: ${String(error)}`, { cause: error });
    } finally {
      closeSync(fd);
    }
  }

  async openMapped(
    source: string,
    map: IdMapRange,
    options: { readonly readonly?: boolean } = {},
  ): Promise<DetachedTree> {
    const fd = await this.#mappedTree(source, map, options.readonly);
    return { path: ownFd(fd), [Symbol.dispose]: () => closeSync(fd) };
  }

  userNamespace(map: IdMapRange): Promise<OpenNamespace> {
    const key = idMapKey(map);
    const known = this.#namespaces.get(key) ?? this.#makeNamespace(map);
    this.#namespaces.set(key, known);
    known.catch(() => this.#namespaces.delete(key));
    return known;
  }

  give(mount: GivenMount, pid: number): Promise<void> {
    return giveMount(mount, pid);
  }

  takeBack(mount: TakenMount, pid: number): Promise<void> {
    return takeMount(mount, pid);
  }

  async #mappedTree(source: string, map: IdMapRange, readonly = false): Promise<number> {
    if (!this.#mapIds) throw new AppError('unsupported', 'Mapped mounts are switched off on this server');
    const namespace = await this.userNamespace(map);
    const fd = await openTree(source).catch((error: unknown) => {
      throw new AppError('internal', `cannot clone the mount of ${source}: ${String(error)}`, { cause: error });
    });
    try {
      await mapIds(fd, namespace.fd, readonly);
      return fd;
    } catch (error) {
      closeSync(fd);
      throw new AppError('unsupported', `cannot map the ids of ${source}: ${String(error)}`, { cause: error });
    }
  }

  /**
   * A namespace needs a first process. unshare(1) makes one around cat(1), which by echoing proves that it is inside; then this
   * process, being root outside, writes the maps and keeps the namespace open. Takes about 5 ms, once per map.
   */
  async #makeNamespace(map: IdMapRange): Promise<OpenNamespace> {
    const helper = this.#host.start(['unshare', '--user', 'cat'], { timeoutMs: HELPER_LIMIT_MS });
    try {
      helper.stdin.write('\n');
      await Promise.race([once(helper.stdout, 'data'), helper.done]);
      await writeFile(`/proc/${helper.pid}/uid_map`, mapLines(map, 'uid'));
      await writeFile(`/proc/${helper.pid}/gid_map`, mapLines(map, 'gid'));
      const fd = openSync(`/proc/${helper.pid}/ns/user`, 'r');
      return { fd, path: ownFd(fd) };
    } catch (error) {
      throw new AppError('internal', `cannot make a user namespace for ids ${idMapKey(map)}: ${String(error)}`, {
        cause: error,
      });
    } finally {
      helper.stdin.end();
      await helper.done.catch(() => {}); // it did its work, or the error above tells
    }
  }
}

/** A name for one of our file descriptors that other processes of ours can use. */
function ownFd(fd: number): string {
  return `/proc/${process.pid}/fd/${fd}`;
}
