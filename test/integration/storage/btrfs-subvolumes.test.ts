// What the btrfs driver does that others do not: nested subvolumes, limits, full pools, pools on devices and paths.
import { appendFile, mkdir, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { StorageDriver } from '#drivers/storage/driver.ts';
import { storageDrivers } from '#drivers/storage/registry.ts';
import type { Host } from '#src/host/host.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/log.ts';
import { poll } from '#src/lib/wait.ts';
import { FINGERPRINT, MAP, signal, smallImage } from '#test/contract/storage-contract.ts';
import { describeWith } from '#test/integration/support.ts';
import { unmappable } from './real-pools.ts';

const MIB = 2 ** 20;
const C1 = { kind: 'container', name: 'c1' } as const;
const C2 = { kind: 'container', name: 'c2' } as const;
const V1 = { kind: 'custom', name: 'default_v1' } as const;
const host = new LinuxHost();

describeWith({ root: true, commands: ['mkfs.btrfs', 'losetup', 'btrfs', 'wipefs', 'blkid'] }, 'btrfs pools', () => {
  let folder: string;
  let count = 0;

  beforeAll(async () => {
    folder = (await host.run(['mktemp', '-d', '/var/tmp/lighter-btrfs-XXXXXX'])).stdout.trim();
  });
  afterAll(async () => {
    for (const mounted of await host.mounts.mountsUnder(folder)) await host.mounts.unmount(mounted);
    await host.removeTree(folder);
  });

  interface Made extends AsyncDisposable {
    readonly path: string;
    readonly driver: StorageDriver;
    again(config?: Readonly<Record<string, string>>): StorageDriver;
  }

  function describePool(config: Readonly<Record<string, string>>, machine: Host = host): Made {
    const pool = `p${process.pid}${count++}`;
    const path = join(folder, pool);
    const disksPath = join(folder, 'disks');
    const again = (settings = config): StorageDriver => {
      const places = { pool, poolPath: path, disksPath };
      const context = { host: machine, log: silentLog, ...places, config: settings, defaultIdMap: MAP };
      return storageDrivers.btrfs.create(context);
    };
    const dispose = async (): Promise<void> => {
      for (const mounted of await host.mounts.mountsUnder(path)) await host.mounts.unmount(mounted);
      await rm(join(disksPath, `${pool}.img`), { force: true });
    };
    return { path, driver: again(), again, [Symbol.asyncDispose]: dispose };
  }

  async function withContainer(config: Readonly<Record<string, string>> = { size: '512MiB' }): Promise<Made> {
    const pool = describePool(config);
    await pool.driver.createPool(signal());
    await pool.driver.createImage(FINGERPRINT, smallImage(host), signal());
    await pool.driver.createVolume({ ...C1, image: FINGERPRINT, idMap: MAP }, signal());
    return pool;
  }
  const rootOf = ({ path }: Made, name = 'c1'): string => join(path, 'containers', name, 'rootfs');
  const subvolume = (path: string): Promise<unknown> => host.run(['btrfs', 'subvolume', 'create', path]);
  const readonly = async (path: string): Promise<string> => {
    return (await host.run(['btrfs', 'property', 'get', '-ts', path, 'ro'])).stdout.trim();
  };

  /** Two levels, the inner one readonly with another in it. */
  async function nest(root: string): Promise<void> {
    await mkdir(join(root, 'a/b'), { recursive: true });
    await subvolume(join(root, 'a/b/one'));
    await subvolume(join(root, 'a/b/one/two'));
    await subvolume(join(root, 'a/b/one/two/three'));
    await writeFile(join(root, 'a/b/one/two/three/f'), 'deep');
    await host.run(['btrfs', 'property', 'set', '-ts', join(root, 'a/b/one/two'), 'ro', 'true']);
  }

  it('copies, restores and deletes what is nested in a volume', async () => {
    await using pool = await withContainer();
    const { driver } = pool;
    await nest(rootOf(pool));

    await driver.createSnapshot(C1, 's', signal());
    await writeFile(join(rootOf(pool), 'later'), '');
    await driver.copyVolume?.({ from: C1, snapshots: ['s'], to: { ...C2, idMap: MAP } }, signal());
    await driver.restoreSnapshot(C1, 's', signal());

    const snapshot = join(pool.path, 'containers-snapshots/c2/s/rootfs');
    for (const root of [rootOf(pool), rootOf(pool, 'c2'), snapshot]) {
      expect(await readFile(join(root, 'a/b/one/two/three/f'), 'utf8')).toBe('deep');
      expect(await readonly(join(root, 'a/b/one/two'))).toBe('ro=true');
      expect(await readonly(join(root, 'a/b/one'))).toBe('ro=false');
    }
    expect(await readdir(rootOf(pool))).not.toContain('later');
    expect(await readonly(join(pool.path, 'containers-snapshots/c2/s'))).toBe('ro=true');
    for (const volume of [C1, C2]) await driver.deleteVolume(volume, signal());
    await driver.deleteImage(FINGERPRINT, signal());
    const { stdout } = await host.run(['btrfs', 'subvolume', 'list', pool.path]);
    expect(stdout).toBe('');
    await driver.deletePool(signal());
  });

  it('changes the owners of what is nested in a root, where the kernel cannot map ids', async () => {
    await using pool = describePool({ size: '512MiB' }, unmappable());
    const { driver } = pool;
    await driver.createPool(signal());
    await driver.createImage(FINGERPRINT, smallImage(host), signal());
    await driver.createVolume({ ...C1, image: FINGERPRINT, idMap: null }, signal());
    await driver.mountVolume(C1, null, signal());
    await nest(rootOf(pool));

    await driver.mountVolume(C1, MAP, signal());

    const nested = ['a/b/one', 'a/b/one/two', 'a/b/one/two/three', 'a/b/one/two/three/f'];
    const owners = await Promise.all(nested.map(async (path) => (await stat(join(rootOf(pool), path))).uid));
    expect(owners).toEqual(nested.map(() => MAP.uidBase));
    expect(await readonly(join(rootOf(pool), 'a/b/one/two'))).toBe('ro=true');
    expect(await readonly(join(rootOf(pool), 'a/b/one'))).toBe('ro=false');
    await driver.deleteVolume(C1, signal());
  });

  it('is not led out of a volume by links that take the place of directories', async () => {
    await using pool = await withContainer();
    const { driver } = pool;
    await driver.createVolume({ ...C2, image: FINGERPRINT, idMap: MAP }, signal());
    const [mine, other] = [rootOf(pool), rootOf(pool, 'c2')];
    await mkdir(join(mine, 'd'));
    await subvolume(join(mine, 'd/n'));
    await mkdir(join(other, 'n'));
    const stop = new AbortController();
    const hostile = (async () => {
      while (!stop.signal.aborted) {
        await rename(join(mine, 'd'), join(mine, 'e'));
        await symlink(other, join(mine, 'd'));
        await rm(join(mine, 'd'));
        await rename(join(mine, 'e'), join(mine, 'd'));
      }
    })();

    for (let turn = 0; turn < 20; turn++) {
      await driver.createSnapshot(C1, `s${turn}`, signal());
      await driver.deleteSnapshot(C1, `s${turn}`, signal());
    }
    stop.abort();
    await hostile;
    await driver.deleteVolume(C1, signal());

    expect(await readdir(other)).toEqual(['hello', 'n']);
    expect((await stat(join(other, 'n'))).ino).not.toBe(256);
  });

  it('deletes subvolumes whose names are no text', async () => {
    await using pool = await withContainer();
    const name = Buffer.concat([Buffer.from(`${rootOf(pool)}/`), Buffer.from([0xff, 0xfe, 0x0a])]);
    await host.run(['sh', '-c', 'btrfs subvolume create "$(printf "$1/\\\\377\\\\376")"', 'sh', rootOf(pool)]);
    expect(name.length).toBeGreaterThan(3);

    await pool.driver.createSnapshot(C1, 's', signal());
    await pool.driver.deleteVolume(C1, signal());

    expect(await pool.driver.listVolumes('container', signal())).toEqual([]);
  });

  it('holds volumes to their size, and lets those that are full be kept, restored, enlarged and deleted', async () => {
    await using pool = await withContainer();
    const { driver } = pool;
    await driver.createVolume({ ...V1, sizeBytes: 20 * MIB, idMap: null }, signal());
    const { rootfsPath } = await driver.mountVolume(V1, null, signal());
    await nest(rootfsPath);
    const fill = (): Promise<unknown> => {
      return host.run(['dd', 'if=/dev/urandom', `of=${rootfsPath}/f`, 'bs=1M', 'count=40', 'conv=fsync']);
    };

    await expect(fill()).rejects.toThrow('quota exceeded');
    expect((await stat(join(rootfsPath, 'f'))).size).toBeLessThan(20 * MIB);
    await driver.createSnapshot(V1, 's', signal());
    await driver.restoreSnapshot(V1, 's', signal());
    await expect(fill()).rejects.toThrow('quota exceeded');
    await driver.resizeVolume(V1, 100 * MIB, signal());
    await fill();
    await driver.resizeVolume(V1, undefined, signal());
    await appendFile(join(rootfsPath, 'g'), Buffer.alloc(80 * MIB, 'x'));
    await driver.deleteVolume(V1, signal());

    expect(await driver.listVolumes('custom', signal())).toEqual([]);
  });

  it('tells what a volume has alone, and nothing before anything has a size', async () => {
    await using pool = await withContainer();
    const { driver } = pool;
    expect(await driver.instanceUsage('c1', signal())).toBeUndefined();
    await driver.createVolume({ ...V1, sizeBytes: 50 * MIB, idMap: null }, signal());
    const { rootfsPath } = await driver.mountVolume(V1, null, signal());

    await writeFile(join(rootfsPath, 'f'), Buffer.alloc(5 * MIB, 'x'));
    await driver.createSnapshot(V1, 's', signal());
    await writeFile(join(rootfsPath, 'g'), Buffer.alloc(3 * MIB, 'y'));
    await host.run(['sync', '-f', rootfsPath]);

    const used = (await driver.volumeUsage?.(V1, signal())) ?? 0;
    expect(used).toBeGreaterThanOrEqual(3 * MIB);
    expect(used).toBeLessThan(4 * MIB);
    expect(await driver.snapshotUsage(V1, 's', signal())).toBeLessThan(MIB);
  });

  it('refuses an instance whose image is bigger than its size', async () => {
    await using pool = await withContainer();
    const { driver } = pool;
    await driver.createVolume({ ...C2, image: FINGERPRINT, sizeBytes: 100 * MIB, idMap: MAP }, signal());
    const big = async (directory: string): Promise<void> => {
      await mkdir(join(directory, 'rootfs'));
      await writeFile(join(directory, 'rootfs/f'), Buffer.alloc(10 * MIB, 'x'));
    };
    await driver.createImage('b'.repeat(64), big, signal());

    const create = driver.createInstance({ name: 'c3', image: 'b'.repeat(64), sizeBytes: MIB, idMap: MAP }, signal());

    await expect(create).rejects.toThrow('more than its size');
    expect(await driver.listInstances(signal())).toEqual(['c1', 'c2']);
  });

  it('says that a pool is full, leaves nothing half-made, and is well again when something is deleted', async () => {
    await using pool = await withContainer({ size: '160MiB' });
    const { driver } = pool;
    const fill = async (directory: string): Promise<void> => {
      await mkdir(join(directory, 'rootfs'));
      await host.run(['dd', 'if=/dev/urandom', `of=${directory}/rootfs/f`, 'bs=1M', 'conv=fsync']);
    };

    await expect(driver.createImage('c'.repeat(64), fill, signal())).rejects.toThrow('No space left on device');
    expect(await driver.listImages(signal())).toEqual([FINGERPRINT]);
    const ballast = host.run(['dd', 'if=/dev/urandom', `of=${rootOf(pool)}/f`, 'bs=1M', 'conv=fsync']);
    await expect(ballast).rejects.toThrow('No space left');
    await driver.deleteVolume(C1, signal());

    const make = async (): Promise<true | undefined> => {
      await host.run(['sync', '-f', pool.path]);
      await driver.createVolume({ ...C2, image: FINGERPRINT, idMap: MAP }, signal());
      return writeFile(join(rootOf(pool, 'c2'), 'f'), Buffer.alloc(20 * MIB, 'x')).then(
        () => true as const,
        async () => {
          await driver.deleteVolume(C2, signal());
          return undefined;
        },
      );
    };
    await poll(make, 500, signal());
    expect(await driver.listInstances(signal())).toEqual(['c2']);
  });

  it('makes a pool on a block device, finds it by its UUID, and gives the device back', async () => {
    const file = join(folder, 'device');
    await host.run(['truncate', '-s', '256M', file]);
    const device = (await host.run(['losetup', '-f', '--show', file])).stdout.trim();
    try {
      await using pool = await withContainer({ source: device });
      const recorded = (await pool.driver.recordedConfig?.(signal())) ?? {};
      await host.mounts.unmount(pool.path);

      const found = pool.again(recorded);
      await found.openPool(signal());

      expect(recorded['source']).toMatch(/^[0-9a-f-]{36}$/u);
      expect(recorded['volatile.initial_source']).toBe(device);
      expect(await found.listInstances(signal())).toEqual(['c1']);
      const second = describePool({ source: device });
      await expect(second.driver.createPool(signal())).rejects.toThrow('Failed to format block device');
      await found.deleteVolume(C1, signal());
      await found.deleteImage(FINGERPRINT, signal());
      await found.deletePool(signal());
      expect((await host.run(['blkid', '-p', device], { okExitCodes: [0, 2] })).stdout).toBe('');
    } finally {
      await host.run(['losetup', '-d', device]);
    }
  });

  it('takes an empty place on btrfs and leaves it as it was, and no other', async () => {
    await using outer = await withContainer();
    await mkdir(join(outer.path, 'buckets/empty'));
    await subvolume(join(outer.path, 'buckets/sub'));
    await mkdir(join(outer.path, 'buckets/used/x'), { recursive: true });
    const at = (name: string): Made => describePool({ source: join(outer.path, 'buckets', name) });

    for (const name of ['empty', 'sub', 'new']) {
      await using pool = at(name);
      await pool.driver.createPool(signal());
      await pool.driver.createVolume({ ...C1, idMap: MAP }, signal());
      await pool.driver.createSnapshot(C1, 's', signal());
      await pool.driver.deleteVolume(C1, signal());
      await pool.driver.deletePool(signal());
    }

    expect(await readdir(join(outer.path, 'buckets'))).toEqual(['empty', 'sub', 'used']);
    expect(await readdir(join(outer.path, 'buckets/sub'))).toEqual([]);
    await expect(at('used').driver.createPool(signal())).rejects.toMatchObject({ kind: 'conflict' });
    const elsewhere = describePool({ source: '/var/tmp' });
    await expect(elsewhere.driver.createPool(signal())).rejects.toThrow();
    expect(() => describePool({ source: '/x', size: '1GiB' })).toThrow('size');
    expect(() => describePool({ source: '../x' })).toThrow('Invalid "source" property');
  });

  it('is unavailable while its file is away, and there again with it', async () => {
    await using pool = await withContainer();
    const file = join(folder, 'disks', `${pool.path.split('/').at(-1) ?? ''}.img`);
    await host.mounts.unmount(pool.path);
    await rename(file, `${file}.away`);

    await expect(pool.again().openPool(signal())).rejects.toMatchObject({ kind: 'unavailable' });
    expect(await readdir(pool.path)).toEqual([]);
    await rename(`${file}.away`, file);
    const back = pool.again();
    await back.openPool(signal());

    expect(await back.listInstances(signal())).toEqual(['c1']);
  });

  it('is opened again, as its configuration changes, without harm to what is being made', async () => {
    await using pool = await withContainer();
    const other = 'd'.repeat(64);
    const slow = async (directory: string, owners: typeof MAP | null): Promise<void> => {
      await smallImage(host)(directory, owners);
      await pool.again().openPool(signal());
    };

    await pool.driver.createImage(other, slow, signal());

    expect(await pool.driver.listImages(signal())).toEqual([other, FINGERPRINT]);
  });

  it('removes what a killed daemon left', async () => {
    await using pool = await withContainer();
    await pool.driver.createSnapshot(C1, 's', signal());
    const { btrfs } = host;
    const path = join(pool.path, 'containers/c1');
    await btrfs.snapshot(path, join(pool.path, 'containers/.lighter-1'));
    await btrfs.snapshot(path, join(pool.path, 'containers-snapshots/c1/.lighter-2'), { readonly: true });
    await mkdir(join(pool.path, 'containers-snapshots/.lighter-3'));
    await btrfs.snapshot(path, join(pool.path, 'containers-snapshots/.lighter-3/s'), { readonly: true });

    expect(await pool.driver.listInstances(signal())).toEqual(['c1']);
    expect(await pool.driver.listSnapshots(C1, signal())).toEqual(['s']);
    await pool.again().openPool(signal());

    const { stdout } = await host.run(['btrfs', 'subvolume', 'list', pool.path]);
    expect(stdout).not.toContain('.lighter-');
    expect(stdout.trim().split('\n')).toHaveLength(3);
  });
});
