// The two implementations of zfs, and what is different between them for us: how a dataset is mounted.
import { kindOf } from '#src/lib/errors.ts';
import type { Host } from '#src/host/host.ts';
import { isZfsInKernel, type Zfs, type ZfsProperties } from '#src/host/zfs.ts';

export interface Flavour {
  /** Whether programs without power on the host may own files there: zfs-fuse itself refuses their chown(2). */
  readonly servesUserNamespaces: boolean;
  /** Properties of the folder datasets: their children inherit where they are mounted. */
  folderProperties(path: string): ZfsProperties;
  /** Wanted on the root dataset. */
  readonly rootProperties: ZfsProperties;
  mount(dataset: string, path: string, signal: AbortSignal): Promise<void>;
  /** A busy mount is detached lazily. */
  unmount(dataset: string, path: string, signal: AbortSignal): Promise<void>;
  /** For reading. Idempotent. */
  mountSnapshot(view: SnapshotView, signal: AbortSignal): Promise<void>;
  /** Idempotent. */
  unmountSnapshot(view: SnapshotView, signal: AbortSignal): Promise<void>;
}

export interface SnapshotView {
  readonly snapshot: string;
  readonly path: string;
  /** Name of a clone that may be made for it; what a crash leaves of it is removed with other work in progress. */
  readonly clone: string;
}

const COMMON = { atime: 'off', setuid: 'on', exec: 'on', devices: 'on' } as const;

/** OpenZFS in the kernel: legacy mounts by mount(2), like LXD. */
class KernelFlavour implements Flavour {
  readonly servesUserNamespaces = true;
  readonly rootProperties = { ...COMMON, relatime: 'on', acltype: 'posixacl', xattr: 'sa', mountpoint: 'legacy' };
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  folderProperties(): ZfsProperties {
    return { mountpoint: 'legacy' };
  }

  async mount(dataset: string, path: string): Promise<void> {
    await this.#host.makeDirectory(path);
    await this.#host.mounts.mount({ source: dataset, target: path, type: 'zfs' });
  }

  unmount(_dataset: string, path: string): Promise<void> {
    return this.#host.mounts.unmount(path);
  }

  async mountSnapshot({ snapshot, path }: SnapshotView): Promise<void> {
    if (await this.#host.mounts.isMountPoint(path)) return;
    await this.#host.makeDirectory(path);
    await this.#host.mounts.mount({ source: snapshot, target: path, type: 'zfs', flags: ['readonly'] });
  }

  unmountSnapshot({ path }: SnapshotView): Promise<void> {
    return this.#host.mounts.unmount(path);
  }
}

/** zfs-fuse: its daemon mounts, at the place that the mountpoint property says; and no snapshots, but clones of them. */
class FuseFlavour implements Flavour {
  readonly servesUserNamespaces = false;
  readonly rootProperties = { ...COMMON, mountpoint: 'none' };
  readonly #host: Host;
  readonly #zfs: Zfs;

  constructor(host: Host, zfs: Zfs) {
    this.#host = host;
    this.#zfs = zfs;
  }

  folderProperties(path: string): ZfsProperties {
    return { mountpoint: path, canmount: 'off' };
  }

  async mount(dataset: string, path: string, signal: AbortSignal): Promise<void> {
    await this.#host.makeDirectory(path);
    await this.#zfs.mount(dataset, signal);
  }

  async unmount(dataset: string, path: string, signal: AbortSignal): Promise<void> {
    if (!(await this.#host.mounts.isMountPoint(path))) return;
    try {
      await this.#zfs.unmount(dataset, signal);
    } catch {
      await this.#host.mounts.unmount(path); // busy, whatever it said: out of sight, and gone with its last user
    }
  }

  async mountSnapshot({ snapshot, path, clone }: SnapshotView, signal: AbortSignal): Promise<void> {
    if (await this.#host.mounts.isMountPoint(path)) return;
    await this.#host.makeDirectory(path);
    const properties = { readonly: 'on', canmount: 'noauto', mountpoint: path };
    try {
      await this.#zfs.clone(snapshot, { dataset: clone, properties }, signal);
    } catch (error) {
      if (kindOf(error) !== 'conflict') throw error;
      await this.#zfs.set(clone, { mountpoint: path }, signal); // left by one that was busy: it shows the same
    }
    await this.#zfs.mount(clone, signal);
  }

  async unmountSnapshot({ path, clone }: SnapshotView, signal: AbortSignal): Promise<void> {
    await this.unmount(clone, path, signal);
    try {
      await this.#zfs.destroy(clone, signal);
    } catch (error) {
      if (kindOf(error) !== 'unavailable') throw error; // somebody is still in it: it goes when the pool is opened
    }
  }
}

export async function findFlavour(host: Host, zfs: Zfs): Promise<Flavour> {
  return (await isZfsInKernel(host)) ? new KernelFlavour(host) : new FuseFlavour(host, zfs);
}
