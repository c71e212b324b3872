// The overlay driver: what it mounts, and that it cleans up after itself.
import { beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '#src/lib/log.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import type { StorageDriver } from '#drivers/storage/driver.ts';
import { parseSizeBytes } from '#drivers/storage/common/size.ts';
import { storageDrivers } from '#drivers/storage/registry.ts';
import { withCopies } from '#test/fakes/copies.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';
import { FINGERPRINT, MAP, signal, smallImage } from '#test/contract/storage-contract.ts';

let host: FakeHost;

function driver(config: Readonly<Record<string, string>> = {}): StorageDriver {
  return storageDrivers.overlay.create({
    host,
    log: silentLog,
    pool: 'p',
    poolPath: '/p',
    disksPath: '/disks',
    config,
  });
}

async function ready(): Promise<StorageDriver> {
  const pool = driver();
  await pool.createPool(signal());
  await pool.createImage(FINGERPRINT, smallImage(host), signal());
  await pool.createInstance({ name: 'c1', image: FINGERPRINT, idMap: MAP }, signal());
  host.calls.length = 0;
  return pool;
}

beforeEach(() => {
  host = withCopies(new FakeHost());
});

describe('mounting', () => {
  const overlay = (lower: string) =>
    `mount -t overlay -o lowerdir=${lower},upperdir=/p/containers/c1/upper,workdir=/p/containers/c1/work,redirect_dir=on overlay /p/containers/c1/rootfs`;

  it('sees the image through the map for the moment of the mount only', async () => {
    const pool = await ready();

    await pool.mountInstance('c1', MAP, signal());

    expect(host.calls).toEqual([
      `bind-mapped /p/images/${FINGERPRINT}/rootfs /p/containers/c1/lower 100000-100000-65536`,
      overlay('/p/containers/c1/lower'),
      'umount /p/containers/c1/lower',
    ]);
  });

  it('needs no map for a privileged instance', async () => {
    const pool = await ready();
    await pool.createInstance({ name: 'c2', image: FINGERPRINT, idMap: null }, signal());
    host.calls.length = 0;

    await pool.mountInstance('c2', null, signal());

    expect(host.calls).toEqual([overlay(`/p/images/${FINGERPRINT}/rootfs`).replaceAll('/c1/', '/c2/')]);
  });

  it('makes one shifted copy for all instances where the kernel cannot map ids', async () => {
    host.mounts.mappable = false;
    const pool = await ready();
    await pool.createInstance({ name: 'c2', image: FINGERPRINT, idMap: MAP }, signal());

    await Promise.all(['c1', 'c2'].map((name) => pool.mountInstance(name, MAP, signal())));

    expect(host.calls.filter((call) => call.startsWith('cp -a'))).toHaveLength(1);
    expect(host.calls).toContain(overlay(`/p/shifted/${FINGERPRINT}.100000-100000-65536`));
  });

  it('takes the view of the image away when the mount fails', async () => {
    const pool = await ready();
    host.mounts.mount = () => Promise.reject(new Error('no overlay'));

    await expect(pool.mountInstance('c1', MAP, signal())).rejects.toThrow('no overlay');

    expect([...host.mounts.table.keys()]).toEqual([]);
  });

  it('takes away what a crash left at the place of the view', async () => {
    const pool = await ready();
    await host.mounts.bindMapped('/x', '/p/containers/c1/lower', MAP);

    await pool.mountInstance('c1', MAP, signal());

    expect([...host.mounts.table.keys()]).toEqual(['/p/containers/c1/rootfs']);
  });
});

describe('quotas', () => {
  it('are project quotas of the upper and work folders', async () => {
    host.projectQuotas.on = true;
    const pool = await ready();
    expect(pool.info.quotas).toBe(true);

    await pool.createInstance({ name: 'c2', image: FINGERPRINT, idMap: MAP, sizeBytes: 5000 }, signal());
    const [id = 0] = host.projectQuotas.limits.keys();

    expect(host.projectQuotas.limits.get(id)).toBe(5000);
    expect(
      [...host.projectQuotas.projects.entries()]
        .filter(([, project]) => project === id)
        .map(([path]) => path.split('/').at(-1)),
    ).toEqual(['upper', 'work']);
    await pool.resizeInstance('c2', 6000, signal());
    expect(host.projectQuotas.limits.get(id)).toBe(6000);
    await pool.deleteInstance('c2', signal());
    expect(host.projectQuotas.limits.has(id)).toBe(false);
  });

  it('are said to be missing once, when a size is asked for without them', async () => {
    const warnings: string[] = [];
    const log = { ...silentLog, warn: (message: string) => void warnings.push(message) };
    const pool = storageDrivers.overlay.create({ host, log, pool: 'p', poolPath: '/p', disksPath: '/d', config: {} });
    await pool.createPool(signal());

    await pool.createInstance({ name: 'c1', idMap: null, sizeBytes: 5 }, signal());

    expect(warnings).toEqual(['size is not enforced: the file system has no project quotas']);
  });
});

describe('a pool', () => {
  it('elsewhere is bound to its path, again after a reboot', async () => {
    host.files.set('/data', null);
    await driver({ source: '/data' }).createPool(signal());
    await host.mounts.unmount('/p');

    await driver({ source: '/data' }).openPool(signal());

    expect(host.calls.filter((call) => call.startsWith('mount'))).toEqual([
      'mount -t none -o bind /data /p',
      'mount -t none -o bind /data /p',
    ]);
  });

  it('is not made over somebody else’s files', async () => {
    host.files.set('/data/precious', 'x');

    await expect(driver({ source: '/data' }).createPool(signal())).rejects.toMatchObject({ kind: 'conflict' });

    expect(host.files.get('/data/precious')).toBe('x');
    expect(host.files.has('/p')).toBe(false);
  });
});

describe('sizes', () => {
  it.each([
    ['10GiB', 10 * 2 ** 30],
    ['5MB', 5e6],
    ['1024', 1024],
    ['1 KiB', 1024],
  ])('%s', (text, bytes) => {
    expect(parseSizeBytes(text)).toBe(bytes);
  });

  it.each(['', 'GiB', '-1', '1.5GiB', '1XB'])('refuses %j', (text) => {
    expect(() => parseSizeBytes(text)).toThrow('invalid size');
  });
});

it('can be made on the real host without touching it', () => {
  const context = { host: new LinuxHost(), log: silentLog, pool: 'p', poolPath: '/p', disksPath: '/d', config: {} };

  expect(Object.values(storageDrivers).map((module) => module.create(context).info.name)).toEqual([
    'btrfs',
    'dir',
    'lvm',
    'overlay',
    'zfs',
  ]);
});
