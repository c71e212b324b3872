// Where lvm pools lie, what becomes of groups that were there, and how big volumes are; on a real device mapper.
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { LinuxHost } from '#src/host/linux-host.ts';
import { Lvm } from '#src/host/lvm.ts';
import { silentLog } from '#src/lib/log.ts';
import { storageDrivers } from '#drivers/storage/registry.ts';
import type { StorageDriver } from '#drivers/storage/driver.ts';
import { FINGERPRINT, MAP, signal, smallImage } from '#test/contract/storage-contract.ts';
import { describeWith } from '#test/integration/support.ts';

const GROUP = `t${randomUUID().slice(0, 8)}`;
const V = { kind: 'custom', name: 'default_v' } as const;
const MIB = 2 ** 20;

const commands = ['lvcreate', 'thin_check', 'mkfs.ext4', 'losetup'];

describeWith({ root: true, deviceMapper: true, commands }, 'lvm pools', () => {
  const host = new LinuxHost();
  const lvm = new Lvm(host);
  let work = '';
  let device = '';

  beforeAll(async () => {
    work = (await host.run(['mktemp', '-d', '/var/tmp/lighter-lvm-XXXXXX'])).stdout.trim();
    await host.run(['truncate', '-s', '300M', join(work, 'disk')]);
    device = (await host.run(['losetup', '-f', '--show', join(work, 'disk')])).stdout.trim();
    await lvm.createGroup(GROUP, device, {}, signal());
  });
  afterAll(async () => {
    if (await lvm.group(GROUP, signal())) await lvm.removeGroup(GROUP, signal());
    await host.run(['losetup', '-d', device]);
    await host.removeTree(work);
  });

  const on = (config: Readonly<Record<string, string>>, pool = 'p'): StorageDriver => {
    const paths = { poolPath: join(work, pool), disksPath: join(work, 'disks') };
    return storageDrivers.lvm.create({
      host,
      log: silentLog,
      pool,
      ...paths,
      config: { 'volume.size': '32MiB', ...config },
    });
  };
  const adopted = (): StorageDriver => on({ source: GROUP });
  const names = async (): Promise<readonly string[]> => (await lvm.volumes(GROUP, signal())).map(({ name }) => name);
  const tags = async (): Promise<readonly string[]> => (await lvm.group(GROUP, signal()))?.tags ?? [];

  it('adopt a group, show their volumes as LXD’s, and give it back', async () => {
    const driver = adopted();
    await driver.createPool(signal());
    await driver.createImage(FINGERPRINT, smallImage(host), signal());
    await driver.createInstance({ name: 'web-1', image: FINGERPRINT, idMap: MAP }, signal());
    await driver.createSnapshot({ kind: 'container', name: 'web-1' }, 'a-b', signal());
    await driver.createVolume({ ...V, idMap: null }, signal());

    expect(await driver.recordedConfig?.(signal())).toMatchObject({
      source: GROUP,
      'lvm.vg_name': GROUP,
      'lvm.thinpool_name': 'LXDThinPool',
    });
    expect((await names()).toSorted()).toEqual(
      [
        'LXDThinPool',
        'containers_web--1',
        'containers_web--1-a--b',
        'custom_default_v',
        `images_${FINGERPRINT}`,
      ].toSorted(),
    );
    expect(await tags()).toContain('lxd_pool');
    expect((await driver.poolUsage(signal())).usedBytes).toBeGreaterThan(0);
    await driver.deleteVolume(V, signal());
    await driver.deleteVolume({ kind: 'container', name: 'web-1' }, signal());
    await driver.deleteImage(FINGERPRINT, signal());
    await driver.deletePool(signal());
    expect([await names(), await tags()]).toEqual([[], []]);
  });

  it('refuse a group that is used, that has something in it, or that is not there', async () => {
    await adopted().createPool(signal());
    await expect(on({ source: GROUP }, 'q').createPool(signal())).rejects.toThrow('is already used by LXD');
    await adopted().deletePool(signal());
    await lvm.create(GROUP, 'precious', { sizeBytes: 4 * MIB }, signal());
    await expect(adopted().createPool(signal())).rejects.toThrow(`Volume group "${GROUP}" is not empty (precious)`);

    await expect(on({ source: `${GROUP}x` }).createPool(signal())).rejects.toThrow('does not exist');
    await on({ source: GROUP, 'lvm.vg.force_reuse': 'true' }).createPool(signal());
    await on({ source: GROUP, 'lvm.vg.force_reuse': 'true' }).deletePool(signal());

    expect(await names()).toEqual(['precious']);
    await lvm.remove(GROUP, 'precious', signal());
  });

  it('refuse a device that has something on it, and are made on an empty one', async () => {
    await host.run(['truncate', '-s', '100M', join(work, 'other')]);
    const other = (await host.run(['losetup', '-f', '--show', join(work, 'other')])).stdout.trim();
    const driver = on({ source: other, 'lvm.vg_name': `${GROUP}d` });
    await host.run(['mkfs.ext4', '-q', other]);

    await expect(driver.createPool(signal())).rejects.toThrow();

    expect((await host.run(['blkid', '-p', '-s', 'TYPE', '-o', 'value', other])).stdout.trim()).toBe('ext4');
    await host.run(['wipefs', '-q', '-a', other]);
    await driver.createPool(signal());
    expect(await driver.recordedConfig?.(signal())).toMatchObject({
      source: `${GROUP}d`,
      'volatile.initial_source': other,
    });
    await driver.deletePool(signal());
    expect(await lvm.group(`${GROUP}d`, signal())).toBeUndefined();
    await host.run(['losetup', '-d', other]);
  });

  it('are unavailable while their file is missing, and come back with it', async () => {
    const name = `${GROUP}f`;
    const driver = on({ size: '128MiB' }, name);
    await driver.createPool(signal());
    const file = join(work, 'disks', `${name}.img`);
    const { devices = [] } = (await lvm.group(name, signal())) ?? {};
    await lvm.deactivateGroup(name, signal());
    await host.run(['losetup', '-d', devices[0] ?? '']);
    await host.rename(file, `${file}.away`);

    await expect(on({ size: '128MiB' }, name).openPool(signal())).rejects.toMatchObject({ kind: 'unavailable' });

    await host.rename(`${file}.away`, file);
    await on({ size: '128MiB' }, name).openPool(signal());
    const before = (await driver.poolUsage(signal())).totalBytes;
    await on({ size: '256MiB' }, name).changePool?.({ size: '128MiB' }, signal());
    expect((await driver.poolUsage(signal())).totalBytes).toBeGreaterThan(before * 1.8);
    await expect(on({ size: '200MiB' }, name).changePool?.({ size: '256MiB' }, signal())).rejects.toThrow('reduced');
    await driver.deletePool(signal());
    expect(existsSync(file)).toBe(false);
  });

  it('have volumes that grow while they are used, and shrink while they are not', async () => {
    const driver = adopted();
    await driver.createPool(signal());
    await driver.createVolume({ ...V, idMap: null, sizeBytes: 32 * MIB }, signal());
    const { rootfsPath } = await driver.mountVolume(V, null, signal());
    const size = async (): Promise<number> => {
      const { blocks, bsize } = await statfs((await driver.mountVolume(V, null, signal())).rootfsPath);
      return blocks * bsize;
    };
    const before = await size();

    await driver.resizeVolume(V, 96 * MIB, signal());

    expect(await size()).toBeGreaterThan(before * 2);
    await writeFile(join(rootfsPath, 'data'), Buffer.alloc(20 * MIB, 1));
    await expect(driver.resizeVolume(V, 64 * MIB, signal())).rejects.toThrow('only shrink while it is not in use');
    expect(await driver.volumeUsage?.(V, signal())).toBeGreaterThan(20 * MIB);
    await driver.unmountVolume(V, signal());
    await expect(driver.resizeVolume(V, 16 * MIB, signal())).rejects.toThrow('holds more than');
    await driver.resizeVolume(V, 72 * MIB, signal());
    expect(await size()).toBeLessThan(72 * MIB);
    expect((await lvm.volume(GROUP, 'custom_default_v', signal()))?.sizeBytes).toBe(72 * MIB);
    await driver.resizeVolume(V, undefined, signal());
    expect((await lvm.volume(GROUP, 'custom_default_v', signal()))?.sizeBytes).toBe(72 * MIB);
    await driver.deleteVolume(V, signal());
    await driver.deletePool(signal());
  });

  it('make instances smaller and larger than their image', async () => {
    const driver = on({ source: GROUP, 'volume.size': '48MiB' });
    await driver.createPool(signal());
    await driver.createImage(FINGERPRINT, smallImage(host), signal());

    for (const [name, bytes] of Object.entries({ small: 24 * MIB, large: 64 * MIB })) {
      await driver.createInstance({ name, image: FINGERPRINT, idMap: MAP, sizeBytes: bytes }, signal());

      const { rootfsPath } = await driver.mountInstance(name, MAP, signal());
      expect(await host.readFile(join(rootfsPath, 'hello'))).toBe('of the image\n');
      expect((await lvm.volume(GROUP, `containers_${name}`, signal()))?.sizeBytes).toBe(bytes);
      await driver.deleteInstance(name, signal());
    }
    await driver.deleteImage(FINGERPRINT, signal());
    await driver.deletePool(signal());
  });

  it('mount volumes with options of their own', async () => {
    const driver = adopted();
    await driver.createPool(signal());
    await driver.createVolume({ ...V, idMap: null, config: { 'block.mount_options': 'noatime,nosuid' } }, signal());
    const options = async (): Promise<string> => {
      const { rootfsPath } = await driver.mountVolume(V, null, signal());
      const { stdout } = await host.run(['findmnt', '-n', '-o', 'OPTIONS', '--mountpoint', rootfsPath]);
      await driver.unmountVolume(V, signal());
      return stdout.trim();
    };

    expect(await options()).toContain('nosuid,noatime');
    await driver.configureVolume?.(V, { config: {}, sizeBytes: undefined }, signal());
    expect(await options()).toContain('discard');

    await driver.deleteVolume(V, signal());
    await driver.deletePool(signal());
  });
});

describeWith({ root: true, deviceMapper: true, commands, extras: ['mkfs.xfs'] }, 'lvm pools with xfs', () => {
  it('mount a volume and its snapshot side by side, and grow', async () => {
    const host = new LinuxHost();
    const work = (await host.run(['mktemp', '-d', '/var/tmp/lighter-lvm-XXXXXX'])).stdout.trim();
    const config = {
      size: '2GiB',
      'lvm.vg_name': `${GROUP}x`,
      'volume.block.filesystem': 'xfs',
      'volume.size': '320MiB',
    };
    const paths = { poolPath: join(work, 'p'), disksPath: join(work, 'disks') };
    const driver = storageDrivers.lvm.create({ host, log: silentLog, pool: 'p', ...paths, config });
    await driver.createPool(signal());
    await driver.createVolume({ ...V, idMap: null }, signal());
    const { rootfsPath } = await driver.mountVolume(V, null, signal());
    await writeFile(join(rootfsPath, 'f'), 'one');

    await driver.createSnapshot(V, 'a', signal());
    await writeFile(join(rootfsPath, 'f'), 'two');
    const then = await driver.mountSnapshot({ volume: V, snapshot: 'a', idMap: null }, signal());

    expect(await host.readFile(join(then.rootfsPath, 'f'))).toBe('one');
    await driver.resizeVolume(V, 400 * MIB, signal());
    await driver.unmountVolume(V, signal());
    await expect(driver.resizeVolume(V, 320 * MIB, signal())).rejects.toThrow('xfs cannot shrink');
    await driver.restoreSnapshot(V, 'a', signal());
    const now = await driver.mountVolume(V, null, signal());
    expect(await host.readFile(join(now.rootfsPath, 'f'))).toBe('one');
    await driver.deleteVolume(V, signal());
    await driver.deletePool(signal());
    await host.removeTree(work);
  });
});
