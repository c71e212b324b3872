// The lvm driver without a device mapper: names, settings, where pools lie, and what it says when something is missing.
import { beforeEach, describe, expect, it } from 'vitest';
import type { Host } from '#src/host/host.ts';
import { silentLog } from '#src/lib/log.ts';
import { growFileSystem, makeFileSystem } from '#drivers/storage/lvm/file-systems.ts';
import { parseImage, parseVolume, VolumeNames } from '#drivers/storage/lvm/names.ts';
import { missingForLvm } from '#drivers/storage/lvm/requirements.ts';
import { defaultBytes, mountOptions, stripeOptions } from '#drivers/storage/lvm/settings.ts';
import { parseSource } from '#drivers/storage/lvm/source.ts';
import { optionsIn, optionsTag } from '#drivers/storage/lvm/tags.ts';
import { storageDrivers } from '#drivers/storage/registry.ts';
import { FakeLvm } from '#test/fakes/fake-lvm.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';
import { FINGERPRINT, MAP, signal, smallImage } from '#test/contract/storage-contract.ts';

const PROGRAMS = ['lvcreate', 'thin_check', 'mkfs.ext4', 'losetup'];
const module = storageDrivers.lvm;

let host: FakeHost;

beforeEach(() => {
  host = new FakeHost();
  host.files.set('/proc/misc', '236 device-mapper\n');
  host.files.set('/run/udev/control', '');
  for (const program of PROGRAMS) host.files.set(`/usr/sbin/${program}`, '');
});

describe('names', () => {
  const names = new VolumeNames();

  it.each([
    [{ kind: 'container', name: 'c1' }, undefined, 'containers_c1'],
    [{ kind: 'container', name: 'web-1' }, undefined, 'containers_web--1'],
    [{ kind: 'container', name: 'p_web-1' }, 'snap0', 'containers_p_web--1-snap0'],
    [{ kind: 'custom', name: 'default_my-vol' }, 'a-b', 'custom_default_my--vol-a--b'],
  ] as const)('of %j and snapshot %j are LXD’s, and are read again', (volume, snapshot, name) => {
    expect(snapshot === undefined ? names.volume(volume) : names.snapshot(volume, snapshot)).toBe(name);
    expect(parseVolume(name)).toEqual({ volume, snapshot });
  });

  it('of images are read again, those of others not', () => {
    expect(parseImage(names.image('f'.repeat(64)))).toBe('f'.repeat(64));
    expect(parseImage('containers_c1')).toBeUndefined();
    expect(['LXDThinPool', 'images_f', 'virtual-machines_v', 'containers_'].map(parseVolume)).toEqual(
      Array.from({ length: 4 }, () => undefined),
    );
  });

  it.each(['-a', 'a-', 'a:b', 'a/b', '', 'x'.repeat(120)])('refuse snapshot %j', (snapshot) => {
    expect(() => names.snapshot({ kind: 'container', name: 'c1' }, snapshot)).toThrow();
  });

  it('tell leftovers of others from what is in progress', () => {
    const other = new VolumeNames();

    expect(names.isLeftover(names.work())).toBe(false);
    expect(names.isLeftover(names.work(), { ownToo: true })).toBe(true);
    expect(names.isLeftover(other.work())).toBe(true);
    expect(names.isLeftover(names.waste())).toBe(true);
    expect(names.isLeftover('containers_c1', { ownToo: true })).toBe(false);
  });
});

describe('the source of a pool', () => {
  const at = (config: Readonly<Record<string, string>>) => parseSource({ pool: 'p', disksPath: '/disks', config });

  it.each([
    [{}, { kind: 'file', path: '/disks/p.img', group: 'p' }],
    [
      { source: '/disks/p.img', size: '1GiB', 'lvm.vg_name': 'g' },
      { kind: 'file', path: '/disks/p.img', group: 'g' },
    ],
    [{ source: '/dev/sdb' }, { kind: 'device', path: '/dev/sdb', group: 'p' }],
    [{ source: 'data' }, { kind: 'group', path: '', group: 'data' }],
    [
      { source: 'data', 'lvm.vg_name': 'data' },
      { kind: 'group', path: '', group: 'data' },
    ],
  ])('%j', (config, expected) => {
    expect(at(config)).toEqual(expected);
  });

  it.each([
    [{ source: '/srv/disk' }, 'Custom loop file locations are not supported'],
    [{ source: 'data', 'lvm.vg_name': 'other' }, 'Invalid combination'],
    [{ source: 'data', size: '1GiB' }, 'size can only be set'],
    [{ source: '-rf' }, 'Invalid name of a volume group'],
    [{ source: 'a/b' }, 'Invalid name of a volume group'],
  ])('%j is refused: %s', (config, message) => {
    expect(() => at(config)).toThrow(message);
  });
});

describe('settings', () => {
  it.each([
    [{ 'lvm.use_thinpool': 'maybe' }, 'Invalid value "maybe"'],
    [{ 'lvm.use_thinpool': 'false' }, 'are not supported'],
    [{ 'lvm.use_thinpool': 'false', 'lvm.thinpool_name': 't' }, 'cannot be set to false when'],
    [{ 'lvm.thinpool_name': 'a b' }, 'Invalid value "a b"'],
    [{ 'volume.lvm.stripes': 'x' }, 'Invalid value "x"'],
    [{ 'volume.lvm.stripes.size': '1000' }, 'Invalid value "1000"'],
    [{ 'volume.block.filesystem': 'btrfs' }, 'are ext4 and xfs'],
    [{ 'volume.block.mount_options': 'a b' }, 'Invalid value "a b"'],
    [{ 'volume.size': 'big' }, 'invalid size'],
  ])('refuse %j: %s', (config, message) => {
    expect(() => module.checkConfig?.(config)).toThrow(message);
  });

  it('are LXD’s where nothing is said', () => {
    module.checkConfig?.({});

    expect(defaultBytes({})).toBe(10 * 2 ** 30);
    expect(mountOptions('', {})).toBe('discard');
    expect(mountOptions('noatime', { 'volume.block.mount_options': 'ro' })).toBe('noatime');
    expect(stripeOptions({ 'volume.lvm.stripes': '2', 'volume.lvm.stripes.size': '64KiB' })).toEqual([
      '--stripes',
      '2',
      '--stripesize',
      '65536b',
    ]);
  });

  it('of a volume’s own survive as a tag', () => {
    expect(optionsIn(['x', optionsTag('noatime,discard')])).toBe('noatime,discard');
    expect(optionsIn(['x'])).toBe('');
    expect(optionsTag('noatime,discard')).toMatch(/^[\w=]+$/u);
  });
});

describe('file systems', () => {
  it('are made in the way that writes least, or in that of an older mkfs', async () => {
    host.fail(/assume_storage_prezeroed/, 'Bad option(s) specified: assume_storage_prezeroed\n');

    await makeFileSystem(host, 'ext4', '/dev/mapper/v', signal());
    await growFileSystem('xfs', { host, device: '/dev/mapper/v', signal: signal() }, '/mnt');

    expect(host.calls).toEqual([
      'mkfs.ext4 -q -E nodiscard,assume_storage_prezeroed=1 -- /dev/mapper/v',
      'mkfs.ext4 -q -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 -- /dev/mapper/v',
      'xfs_growfs -- /mnt',
    ]);
  });

  it('that cannot be made are not tried in another way', async () => {
    host.fail(/^mkfs/, 'No space left on device\n');

    await expect(makeFileSystem(host, 'ext4', '/dev/mapper/v', signal())).rejects.toThrow('No space left');

    expect(host.calls).toHaveLength(1);
  });
});

describe('what a host lacks', () => {
  it('is nothing, or is said with what to do about it', async () => {
    expect(await missingForLvm(host)).toEqual([]);
    host.files.set('/proc/misc', '229 fuse\n');
    host.files.delete('/usr/sbin/thin_check');
    host.fail(/^modprobe/, 'modprobe: FATAL: Module dm_thin_pool not found');

    expect(await missingForLvm(host)).toEqual([
      'the device mapper in the kernel (modprobe dm_thin_pool)',
      'thin_check (apt install thin-provisioning-tools)',
    ]);
  });

  it('keeps pools from being made, before anything is', async () => {
    host.files.set('/proc/misc', '');
    const config = {};
    const driver = module.create({ host, log: silentLog, pool: 'p', poolPath: '/p', disksPath: '/disks', config });

    await expect(driver.createPool(signal())).rejects.toMatchObject({
      kind: 'unsupported',
      message:
        'Storage pools of lvm need what this host lacks: the device mapper in the kernel (modprobe dm_thin_pool)',
    });

    expect(host.calls).toEqual(['modprobe dm_thin_pool']);
    expect([...host.files.keys()].filter((path) => path.startsWith('/p/') || path.startsWith('/disks'))).toEqual([]);
  });
});

describe('a pool', () => {
  const C1 = { kind: 'container', name: 'c1' } as const;
  let lvm: FakeLvm;
  const driver = (config: Readonly<Record<string, string>> = {}) => {
    const paths = { poolPath: '/pools/p', disksPath: '/disks' };
    return module.create({ host, log: silentLog, pool: 'p', ...paths, config, defaultIdMap: MAP });
  };
  const made = async (config: Readonly<Record<string, string>> = {}) => {
    const pool = driver(config);
    await pool.createPool(signal());
    await pool.createImage(FINGERPRINT, smallImage(host), signal());
    host.calls.length = 0;
    return pool;
  };

  beforeEach(() => {
    lvm = new FakeLvm(host);
  });

  it('makes an instance by one command, and another size in a clone that nobody sees', async () => {
    const pool = await made();
    await pool.createInstance({ name: 'c0', image: FINGERPRINT, idMap: MAP }, signal());
    host.calls.length = 0;

    await pool.createInstance({ name: 'c1', image: FINGERPRINT, idMap: MAP }, signal());

    expect(host.calls).toEqual([
      `lvcreate --snapshot --permission rw --setactivationskip y --name containers_c1 -- p/images_${FINGERPRINT}`,
    ]);
    host.calls.length = 0;
    await pool.createInstance({ name: 'c2', image: FINGERPRINT, idMap: MAP, sizeBytes: 20 * 2 ** 30 }, signal());
    expect(host.calls.find((call) => call.startsWith('lvcreate'))).toContain('--name lighter_');
    expect(lvm.volumes.get('containers_c2')?.size).toBe(20 * 2 ** 30);
  });

  it('shrinks what is not in use only, and in the order that loses nothing', async () => {
    const pool = await made();
    await pool.createInstance({ name: 'c1', image: FINGERPRINT, idMap: MAP }, signal());
    await pool.mountInstance('c1', MAP, signal());

    await expect(pool.resizeInstance('c1', 2 ** 30, signal())).rejects.toThrow('only shrink while it is not in use');

    await pool.unmountInstance('c1', signal());
    host.calls.length = 0;
    await pool.resizeInstance('c1', 2 ** 30, signal());
    const steps = host.calls.filter((call) => /^(?:e2fsck|resize2fs|lvresize)/u.test(call));
    expect(steps).toEqual([
      'e2fsck -f -p -- /dev/mapper/p-containers_c1',
      'resize2fs -- /dev/mapper/p-containers_c1 1048576K',
      'lvresize --force --size 1073741824b -- p/containers_c1',
    ]);
  });

  it('says that a volume holds more than its new size', async () => {
    const pool = await made();
    await pool.createInstance({ name: 'c1', image: FINGERPRINT, idMap: MAP }, signal());
    host.fail(/^resize2fs .*K$/, 'resize2fs: New size smaller than minimum (2000)\n');

    const shrunk = pool.resizeInstance('c1', 2 ** 30, signal());

    await expect(shrunk).rejects.toMatchObject({
      kind: 'invalid',
      message: expect.stringContaining('holds more than'),
    });
    expect(lvm.volumes.get('containers_c1')?.size).toBe(10 * 2 ** 30);
  });

  it('hides what is busy, and removes it with the next', async () => {
    const pool = await made();
    for (const name of ['c1', 'c2']) await pool.createInstance({ name, image: FINGERPRINT, idMap: MAP }, signal());
    lvm.busy.add('containers_c1');

    await pool.deleteInstance('c1', signal());

    expect(await pool.listInstances(signal())).toEqual(['c2']);
    expect([...lvm.volumes.keys()].filter((name) => name.startsWith('lighter_'))).toHaveLength(1);
    lvm.busy.clear();
    await pool.deleteInstance('c2', signal());
    expect([...lvm.volumes.keys()]).toEqual(['LXDThinPool', `images_${FINGERPRINT}`]);
  });

  it('mounts a snapshot for reading, and nothing of it is repaired on the way', async () => {
    const pool = await made();
    await pool.createInstance({ name: 'c1', image: FINGERPRINT, idMap: MAP }, signal());
    await pool.createSnapshot(C1, 'a', signal());
    host.calls.length = 0;

    await pool.mountSnapshot({ volume: C1, snapshot: 'a', idMap: MAP }, signal());

    expect(host.calls).toContain(
      'mount -t ext4 -o ro,noload -- /dev/mapper/p-containers_c1--a /pools/p/containers-snapshots/c1/a',
    );
  });

  it('is not deleted with what others have in its group', async () => {
    const pool = driver();
    await pool.createPool(signal());
    lvm.volumes.set('precious', {
      size: 1,
      isPool: false,
      isReadonly: false,
      isActive: true,
      tags: new Set(),
      origin: '',
      files: undefined,
    });

    await expect(pool.deletePool(signal())).rejects.toMatchObject({ kind: 'conflict' });

    expect([...lvm.volumes.keys()]).toEqual(['LXDThinPool', 'precious']);
    expect(host.files.has('/disks/p.img')).toBe(true);
  });

  it('undoes what it made when the thin pool cannot be made', async () => {
    host.fail(/^lvcreate/, '  Insufficient free space\n', 5);

    await expect(driver().createPool(signal())).rejects.toMatchObject({ kind: 'unavailable' });

    expect(lvm.group).toBeUndefined();
    expect(lvm.loops.size).toBe(0);
    expect(host.files.has('/disks/p.img')).toBe(false);
  });

  /** Nothing happens any more from the command of that number on. */
  function dying(at: number): { readonly host: Host; readonly died: Promise<void> } {
    const { promise: died, resolve } = Promise.withResolvers<void>();
    let count = 0;
    const run: Host['run'] = (argv, options) => {
      if (count++ < at) return host.run(argv, options);
      resolve();
      return Promise.withResolvers<never>().promise;
    };
    const get = (target: FakeHost, name: string | symbol): unknown => {
      const value: unknown = name === 'run' ? run : Reflect.get(target, name);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    };
    return { host: new Proxy(host, { get }), died };
  }

  const on = (at: Host, config: Readonly<Record<string, string>>) => {
    const paths = { poolPath: '/pools/p', disksPath: '/disks' };
    return module.create({ host: at, log: silentLog, pool: 'p', ...paths, config, defaultIdMap: MAP });
  };

  it.each<[string, Readonly<Record<string, string>>]>([
    ['a file', {}],
    ['a device', { source: '/dev/sdb' }],
    ['a group that was there', { source: 'data' }],
  ])('on %s leaves nothing when its making was cut off, wherever', async (_what, config) => {
    const given =
      config['source'] === 'data' ? { name: 'data', tags: new Set<string>(), device: '/dev/sdc' } : undefined;
    lvm.group = given;
    await on(host, config).checkPool(signal());
    host.calls.length = 0;
    await on(host, config).createPool(signal());
    const steps = host.calls.filter((call) => /^(?:lv|vg|pv|losetup|truncate|modprobe)/u.test(call)).length;
    await on(host, config).deletePool(signal());

    for (let step = 0; step < steps; step++) {
      const dead = dying(step);
      void on(dead.host, config).createPool(signal());
      await dead.died;

      await on(host, config).discardPool(signal());

      expect([step, lvm.group, [...lvm.volumes.keys()], lvm.loops.size]).toEqual([step, given, [], 0]);
      expect([...(given?.tags ?? [])]).toEqual([]);
      expect([...host.files.keys()].filter((path) => path.startsWith('/pools/p') || path.endsWith('.img'))).toEqual([]);
    }
    expect(steps).toBeGreaterThan(3);
  });

  it('goes with its images when its removal was cut off', async () => {
    await made();

    await driver().discardPool(signal());

    expect(lvm.group).toBeUndefined();
    await driver().discardPool(signal());
    expect(lvm.loops.size).toBe(0);
  });

  it('is not made where something is, and what is there is left alone', async () => {
    lvm.group = { name: 'p', tags: new Set(), device: '/dev/sdb' };
    await expect(driver().checkPool(signal())).rejects.toMatchObject({ kind: 'conflict' });
    host.on(/^blkid -p -- /, 'TYPE="ext4"');
    await expect(driver({ source: '/dev/sdb', 'lvm.vg_name': 'q' }).checkPool(signal())).rejects.toThrow('is in use');

    await driver().discardPool(signal());

    expect(lvm.group.name).toBe('p');
  });
});
