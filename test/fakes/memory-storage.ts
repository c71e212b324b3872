// A storage driver that keeps its volumes in memory: for tests of what stands above the drivers.
import type { StorageContext, StorageDriver, StorageModule } from '#drivers/storage/driver.ts';
import { commonConfigKeys } from '#drivers/storage/common/config-keys.ts';
import { AppError } from '#src/lib/errors.ts';

/** What all pools of one module hold, for assertions and for faults. */
export class MemoryStorage implements StorageModule {
  readonly name = 'memory';
  readonly configKeys = commonConfigKeys;
  readonly pools = new Set<string>();
  readonly images = new Set<string>();
  readonly instances = new Set<string>();
  /** Volume → its snapshots, in order. */
  readonly snapshots = new Map<string, string[]>();
  /** Limits of custom volumes that were changed. */
  readonly sizes = new Map<string, number | undefined>();
  /** Directories that createImage() was asked to fill. */
  readonly unpacked: string[] = [];
  /** Methods that reject, with the error. */
  readonly faults = new Map<keyof StorageDriver, Error>();

  create({ pool, poolPath }: StorageContext): StorageDriver {
    const fault = (method: keyof StorageDriver) => {
      const error = this.faults.get(method);
      if (error) throw error;
    };
    return {
      info: { name: this.name, copyOnWrite: true, quotas: true, instantSnapshots: true },
      checkPool: async () => undefined,
      createPool: async () => {
        fault('createPool');
        this.pools.add(pool);
      },
      openPool: async () => fault('openPool'),
      deletePool: async () => {
        fault('deletePool');
        this.pools.delete(pool);
      },
      discardPool: async () => {
        fault('discardPool');
        this.pools.delete(pool);
      },
      poolUsage: async () => ({ totalBytes: 1000, usedBytes: 10, inodesTotal: 100, inodesUsed: 1 }),
      createImage: async (fingerprint, unpack) => {
        fault('createImage');
        if (this.images.has(fingerprint)) throw new AppError('conflict', `image ${fingerprint} exists`);
        this.unpacked.push(fingerprint);
        await unpack(`${poolPath}/images/${fingerprint}`, null);
        this.images.add(fingerprint);
      },
      hasImage: async (fingerprint) => this.images.has(fingerprint),
      deleteImage: async (fingerprint) => {
        fault('deleteImage');
        this.images.delete(fingerprint);
      },
      listImages: async () => [...this.images],
      createInstance: async ({ name }) => void this.instances.add(name),
      deleteInstance: async (name) => void this.instances.delete(name),
      renameInstance: async (name, newName) => {
        this.instances.delete(name);
        this.instances.add(newName);
      },
      listInstances: async () => [...this.instances],
      mountInstance: async (name) => ({ rootfsPath: `${poolPath}/containers/${name}/rootfs`, owners: null }),
      unmountInstance: async () => undefined,
      resizeInstance: async () => undefined,
      instanceUsage: async () => 4096,
      createVolume: async ({ name }) => {
        fault('createVolume');
        this.instances.add(name);
      },
      deleteVolume: async ({ name }) => {
        this.instances.delete(name);
        this.snapshots.delete(name);
      },
      renameVolume: async ({ name }, newName) => {
        this.instances.delete(name);
        this.instances.add(newName);
        this.snapshots.set(newName, this.snapshots.get(name) ?? []);
        this.snapshots.delete(name);
      },
      mountVolume: async ({ name }) => ({ rootfsPath: `${poolPath}/containers/${name}/rootfs`, owners: null }),
      unmountVolume: async () => undefined,
      resizeVolume: async ({ name }, sizeBytes) => {
        fault('resizeVolume');
        this.sizes.set(name, sizeBytes);
      },
      listVolumes: async () => [...this.instances],
      createSnapshot: async ({ name }, snapshot) => {
        fault('createSnapshot');
        this.snapshots.set(name, [...(this.snapshots.get(name) ?? []), snapshot]);
      },
      deleteSnapshot: async ({ name }, snapshot) => {
        fault('deleteSnapshot');
        this.snapshots.set(
          name,
          (this.snapshots.get(name) ?? []).filter((one) => one !== snapshot),
        );
      },
      renameSnapshot: async ({ volume: { name }, snapshot, newName }) => {
        fault('renameSnapshot');
        this.snapshots.set(
          name,
          (this.snapshots.get(name) ?? []).map((one) => (one === snapshot ? newName : one)),
        );
      },
      listSnapshots: async ({ name }) => this.snapshots.get(name) ?? [],
      snapshotUsage: async () => 512,
      restoreSnapshot: async () => fault('restoreSnapshot'),
      mountSnapshot: async ({ volume: { name }, snapshot }) => {
        return { rootfsPath: `${poolPath}/containers-snapshots/${name}/${snapshot}/rootfs`, owners: null };
      },
      unmountSnapshot: async () => undefined,
      copyVolume: async ({ snapshots, to: { name } }) => {
        fault('copyVolume');
        this.instances.add(name);
        this.snapshots.set(name, [...snapshots]);
      },
    };
  }
}
