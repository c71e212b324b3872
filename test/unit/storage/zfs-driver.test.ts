// The zfs driver's dealings with what a real pool does only now and then.
import { beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '#src/lib/log.ts';
import type { StorageDriver } from '#drivers/storage/driver.ts';
import { storageDrivers } from '#drivers/storage/registry.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';
import { FakeZfs } from '#test/fakes/fake-zfs.ts';
import { FINGERPRINT, MAP, signal, smallImage } from '#test/contract/storage-contract.ts';
import { withCopies } from '#test/fakes/copies.ts';

let host: FakeHost;
let zfs: FakeZfs;

function driver(config: Readonly<Record<string, string>> = {}): StorageDriver {
  return storageDrivers.zfs.create({
    host,
    log: silentLog,
    pool: 'p',
    poolPath: '/pools/p',
    disksPath: '/disks',
    config,
    defaultIdMap: MAP,
  });
}

/** A pool with an image and nothing recorded yet. */
async function ready(config: Readonly<Record<string, string>> = {}): Promise<StorageDriver> {
  const pool = driver(config);
  await pool.createPool(signal());
  await pool.createImage(FINGERPRINT, smallImage(host), signal());
  await pool.createInstance({ name: 'first', image: FINGERPRINT, idMap: MAP }, signal());
  host.calls.length = 0;
  return pool;
}

beforeEach(() => {
  host = withCopies(new FakeHost());
  host.mounts.mappable = false;
  zfs = new FakeZfs(host);
});

describe('an instance', () => {
  it('is made by one command', async () => {
    const pool = await ready();

    await pool.createInstance({ name: 'c1', image: FINGERPRINT, idMap: MAP, sizeBytes: 1000 }, signal());

    expect(host.calls).toEqual([
      `zfs clone -o canmount=noauto -o lighter:owners=100000-100000-65536 -o quota=1000 p/images/${FINGERPRINT}@readonly p/containers/c1`,
    ]);
  });

  it('is limited by refquota when the pool says so', async () => {
    const pool = await ready({ 'volume.zfs.use_refquota': 'true' });

    await pool.resizeInstance('first', 5, signal());
    await pool.resizeInstance('first', undefined, signal());

    const sets = host.calls.filter((call) => call.startsWith('zfs set'));
    expect(sets).toEqual(['zfs set refquota=5 p/containers/first', 'zfs set refquota=none p/containers/first']);
  });

  it('that is busy is gone for everybody, and its name can be used again', async () => {
    const pool = await ready();
    zfs.busy.add('p/containers/first');

    await pool.deleteInstance('first', signal());

    expect(await pool.listInstances(signal())).toEqual([]);
    await expect(pool.mountInstance('first', MAP, signal())).rejects.toMatchObject({ kind: 'not_found' });
    zfs.busy.clear();
    await pool.createInstance({ name: 'first', image: FINGERPRINT, idMap: MAP }, signal());
    expect(await pool.listInstances(signal())).toEqual(['first']);
  }, 20_000);

  it('is re-owned once when its map is not the default one', async () => {
    const pool = await ready();
    const other = { uidBase: 900_000, gidBase: 900_000, size: 65_536 };

    await pool.mountInstance('first', other, signal());
    await pool.mountInstance('first', other, signal());

    const shifts = host.calls.filter((call) => call.startsWith('shift'));
    expect(shifts).toEqual(['shift /pools/p/containers/first/rootfs 100000-100000-65536 900000-900000-65536']);
  });

  it('goes back to its snapshot when the re-owning was cut off by a crash', async () => {
    const pool = await ready();
    zfs.datasets.get('p/containers/first')?.properties.set('lighter:owners', '100000-100000-65536>1-1-65536');
    zfs.snapshots.add('p/containers/first@lighter-remap');

    await pool.mountInstance('first', MAP, signal());

    expect(host.calls).toContain('zfs rollback -r p/containers/first@lighter-remap');
    expect(host.calls.filter((call) => call.startsWith('shift'))).toEqual([]);
    expect([...zfs.snapshots]).toEqual([`p/images/${FINGERPRINT}@readonly`]);
  });
});

describe('on OpenZFS in the kernel', () => {
  const ROOTFS = '/pools/p/containers/first/rootfs';

  /** mount(2) shows no files on the fake machine: what the dataset holds is put there. */
  async function mounted(mappable: boolean) {
    host.files.set('/sys/module/zfs', null);
    host.mounts.mappable = mappable;
    const pool = await ready();
    await host.makeDirectory(ROOTFS);
    return await pool.mountInstance('first', MAP, signal());
  }

  it('a root whose ids the kernel maps stays unmapped on the disk, and is mapped by the runtime', async () => {
    const root = await mounted(true);

    expect(root).toEqual({ rootfsPath: ROOTFS, owners: null, rootfsOptions: 'idmap=container' });
    expect(host.calls.filter((call) => call.startsWith('shift'))).toEqual([]);
    expect(await host.status(ROOTFS)).toMatchObject({ uid: 0, gid: 0 });
    expect(host.calls).toContain('mount -t zfs p/containers/first /pools/p/containers/first');
    expect(zfs.datasets.get('p/containers/first')?.properties.get('lighter:owners')).toBe('host');
  });

  it('before 2.2 the root has the ids of the container on the disk', async () => {
    const root = await mounted(false);

    expect(root).toEqual({ rootfsPath: ROOTFS, owners: MAP });
    expect(zfs.datasets.get('p/containers/first')?.properties.get('lighter:owners')).toBe('100000-100000-65536');
  });
});

describe('a pool', () => {
  it('on an existing dataset is not destroyed with it', async () => {
    zfs.datasets.set('tank', { properties: new Map(), origin: '-' });
    zfs.datasets.set('tank/ours', { properties: new Map(), origin: '-' });
    const pool = driver({ source: 'tank/ours' });
    await pool.createPool(signal());

    await pool.deletePool(signal());

    expect([...zfs.datasets.keys()]).toEqual(['tank', 'tank/ours']);
  });

  it('refuses a dataset with something in it', async () => {
    for (const name of ['tank', 'tank/ours', 'tank/ours/precious'])
      zfs.datasets.set(name, { properties: new Map(), origin: '-' });

    await expect(driver({ source: 'tank/ours' }).createPool(signal())).rejects.toMatchObject({ kind: 'conflict' });

    expect([...zfs.datasets.keys()]).toEqual(['tank', 'tank/ours', 'tank/ours/precious']);
  });

  it('leaves no file behind when the pool cannot be made', async () => {
    host.fail(/^zpool create/, 'cannot create: no space');

    await expect(driver({ size: '1GiB' }).createPool(signal())).rejects.toThrow('no space');

    expect(host.files.has('/disks/p.img')).toBe(false);
    expect(host.calls).toContain('truncate -s 1073741824 /disks/p.img');
  });

  it('is looked for in the folder of its file after a reboot', async () => {
    await ready();
    const known = new Map(zfs.datasets);
    zfs.datasets.clear();
    host.on(/^zpool import/, () => {
      for (const [name, dataset] of known) zfs.datasets.set(name, dataset);
      return '';
    });

    await driver().openPool(signal());

    expect(host.calls).toContain('zpool import -f -d /disks p');
  });

  it.each([
    [{ size: 'much' }, 'invalid size'],
    [{ source: 'tank', 'zfs.pool_name': 'other' }, 'Source must match zfs.pool_name'],
    [{ 'zfs.pool_name': 'tank/a' }, "can't point to a dataset"],
  ])('refuses %j', async (config, message) => {
    const create = async (): Promise<void> => await driver(config).createPool(signal());

    await expect(create()).rejects.toThrow(message);
  });
});

describe('a custom volume', () => {
  it('never is the instance of the same name in the pool', async () => {
    const pool = await ready();
    const volume = { kind: 'custom', name: 'first' } as const;

    await pool.createVolume({ ...volume, idMap: null }, signal());
    await pool.deleteVolume(volume, signal());

    expect(await pool.listInstances(signal())).toEqual(['first']);
    expect(await pool.listVolumes('custom', signal())).toEqual([]);
  });

  it('keeps its settings with it, and its limits follow them', async () => {
    const pool = await ready({ 'volume.zfs.use_refquota': 'true' });
    const volume = { kind: 'custom', name: 'v' } as const;
    const config = { 'zfs.reserve_space': 'true', 'zfs.blocksize': '16KiB' };
    await pool.createVolume({ ...volume, idMap: null, sizeBytes: 5, config }, signal());
    const set = (name: string) => zfs.datasets.get('p/custom/v')?.properties.get(name);
    expect(['refquota', 'refreservation', 'recordsize'].map(set)).toEqual(['5', '5', '16384']);

    await pool.configureVolume?.(volume, { config: { 'zfs.use_refquota': 'false' }, sizeBytes: 7 }, signal());

    expect(['quota', 'refquota', 'refreservation'].map(set)).toEqual(['7', 'none', 'none']);
  });
});

describe('a copy', () => {
  const c = (name: string) => ({ kind: 'container', name }) as const;

  it('is a clone, whose source can go before it', async () => {
    const pool = await ready();
    await pool.copyVolume?.({ from: c('first'), snapshots: [], to: { ...c('second'), idMap: MAP } }, signal());

    await pool.deleteVolume(c('first'), signal());
    expect(await pool.listInstances(signal())).toEqual(['second']);
    await pool.createVolume({ ...c('first'), image: FINGERPRINT, idMap: MAP }, signal());
    await pool.deleteVolume(c('second'), signal());

    expect(
      [...zfs.datasets.keys()].filter((name) => /^p\/(?:containers|deleted\/containers|work)\//.test(name)),
    ).toEqual(['p/containers/first']);
    expect([...zfs.snapshots]).toEqual([`p/images/${FINGERPRINT}@readonly`]);
  });

  it('that was cut off leaves no snapshot after the next start', async () => {
    const pool = await ready();
    zfs.snapshots.add('p/containers/first@copy-1');

    await pool.openPool(signal());

    expect([...zfs.snapshots]).toEqual([`p/images/${FINGERPRINT}@readonly`]);
  });

  it('keeps a snapshot that was deleted, hidden, until it is gone', async () => {
    const pool = await ready();
    await pool.createSnapshot(c('first'), 'a', signal());
    const to = { ...c('second'), idMap: MAP };
    await pool.copyVolume?.({ from: c('first'), snapshot: 'a', snapshots: [], to }, signal());

    await pool.deleteSnapshot(c('first'), 'a', signal());
    expect(await pool.listSnapshots(c('first'), signal())).toEqual([]);
    expect(zfs.snapshots.size).toBe(2);
    await pool.deleteVolume(c('second'), signal());

    expect(zfs.snapshots.size).toBe(1);
  });
});

describe('a snapshot', () => {
  const volume = { kind: 'container', name: 'first' } as const;

  it('with a later one is not restored, and both are named', async () => {
    const pool = await ready();
    for (const name of ['a', 'b']) await pool.createSnapshot(volume, name, signal());

    await expect(pool.restoreSnapshot(volume, 'a', signal())).rejects.toThrow(
      'Snapshot "a" cannot be restored due to subsequent snapshot(s). Set zfs.remove_snapshots to override: b',
    );
    expect(await pool.laterSnapshots?.(volume, 'a', signal())).toMatchObject({ names: ['b'], mayGo: false });
    const lax = driver({ 'volume.zfs.remove_snapshots': 'true' });
    expect(await lax.laterSnapshots?.(volume, 'a', signal())).toMatchObject({ names: ['b'], mayGo: true });
  });

  it('brings its own owners back, also after a crash in the middle', async () => {
    const pool = await ready();
    await pool.createSnapshot(volume, 'a', signal());
    zfs.datasets.get('p/containers/first')?.properties.set('lighter:owners', '1-1-65536');
    host.fail(/^zfs rollback/, 'power cut');
    await expect(pool.restoreSnapshot(volume, 'a', signal())).rejects.toThrow();
    expect(zfs.datasets.get('p/containers/first')?.properties.get('lighter:owners')).toBe('@snapshot-a');
    host.on(/^zfs rollback/, '');

    await driver().mountVolume(volume, MAP, signal());

    expect(zfs.datasets.get('p/containers/first')?.properties.get('lighter:owners')).toBe('100000-100000-65536');
  });

  it.each(['a b', 'a/b', 'a@b', 'ä', ''])('cannot be called %j', async (name) => {
    const pool = await ready();

    await expect(pool.createSnapshot(volume, name, signal())).rejects.toMatchObject({ kind: 'invalid' });
  });
});
