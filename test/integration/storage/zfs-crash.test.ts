// Daemons that are killed between two commands of one step on zfs: the next start finishes it, or leaves nothing of it.
import { randomUUID } from 'node:crypto';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Host } from '#src/host/host.ts';
import { idMapKey } from '#src/host/id-map.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/log.ts';
import { storageDrivers } from '#drivers/storage/registry.ts';
import type { StorageDriver } from '#drivers/storage/driver.ts';
import { signal } from '#test/contract/storage-contract.ts';
import { describeWith } from '#test/integration/support.ts';
import { dying } from './dying-host.ts';
import { unmappable } from './real-pools.ts';

const ZPOOL = `t${randomUUID().slice(0, 8)}`;
const V = { kind: 'custom', name: 'v' } as const;
const W = { kind: 'custom', name: 'w' } as const;

describeWith({ root: true, commands: ['zpool', 'zfs'] }, 'zfs and a daemon that is killed', () => {
  const host = new LinuxHost();
  /** OpenZFS 2.2 and newer map ids, where no file changes its owner. */
  const shifting = unmappable();
  let work = '';
  const driver = (on: Host = host): StorageDriver => {
    const paths = { poolPath: join(work, 'pool'), disksPath: join(work, 'disks') };
    const config = { size: '512MiB', 'zfs.pool_name': ZPOOL };
    return storageDrivers.zfs.create({ host: on, log: silentLog, pool: 'p', ...paths, config });
  };
  const write = async (text: string): Promise<void> => {
    const { rootfsPath } = await driver().mountVolume(V, null, signal());
    await writeFile(join(rootfsPath, 'f'), text);
  };
  const read = async (volume: typeof V | typeof W): Promise<string> => {
    const { rootfsPath } = await driver().mountVolume(volume, null, signal());
    return readFile(join(rootfsPath, 'f'), 'utf8');
  };
  const names = async (below: string): Promise<readonly string[]> => {
    const { stdout } = await host.run(['zfs', 'list', '-H', '-r', '-t', 'all', '-o', 'name', `${ZPOOL}/${below}`]);
    return stdout.split('\n').filter((name) => name !== '' && name !== `${ZPOOL}/${below}`);
  };

  beforeAll(async () => {
    work = (await host.run(['mktemp', '-d', '/var/tmp/lighter-zfs-XXXXXX'])).stdout.trim();
    await driver().createPool(signal());
  });
  afterAll(async () => {
    await host.run(['zpool', 'destroy', '-f', ZPOOL]);
    await host.removeTree(work);
  });

  it.each([
    ['before the clone has the snapshots', /^zfs promote/, 'two'],
    ['before the old one is out of the way', /^zfs rename .*\/custom\/v .*\/deleted/, 'one'],
    ['before the clone is in its place', /^zfs rename .*\/work\/.* .*\/custom\/v$/, 'one'],
    ['at the end', /^zfs inherit lighter:replaces/, 'one'],
  ])('has a volume whole when a copy was in the way of its restore: %s', async (_when, at, expected) => {
    await driver().createVolume({ ...V, idMap: null }, signal());
    await write('one');
    await driver().createSnapshot(V, 'a', signal());
    await write('two');
    await driver().copyVolume?.({ from: V, snapshots: [], to: { ...W, idMap: null } }, signal());
    const dead = dying(host, at);
    void driver(dead.host).restoreSnapshot(V, 'a', signal());
    await dead.died;

    await driver().openPool(signal());

    expect(await read(V)).toBe(expected);
    expect(await driver().listSnapshots(V, signal())).toEqual(['a']);
    expect(await names('work')).toEqual([]);
    await driver().restoreSnapshot(V, 'a', signal());
    expect(await read(V)).toBe('one');
    expect(await read(W)).toBe('two');
    for (const volume of [W, V]) await driver().deleteVolume(volume, signal());
    expect([...(await names('custom')), ...(await names('deleted/custom'))]).toEqual([]);
  });

  it.each([
    ['before a file is touched', /^zfs set lighter:owners=host>/, 'host'],
    ['when all files are re-owned', /^zfs set lighter:owners==5000-/, 'host'],
    ['before it is tidied up', /^zfs destroy .*lighter-remap/, '5000-6000-65536'],
    ['at the end', /^zfs set lighter:owners=5000-/, '5000-6000-65536'],
  ])('has the owners of one map when their change was cut off: %s', async (_when, at, expected) => {
    await driver().createVolume({ ...V, idMap: null }, signal());
    await write('one');
    // the snapshot that an earlier change may have left is removed first
    const skipped = at.source.includes('destroy') ? 1 : 0;
    const dead = dying(shifting, at, skipped);
    const map = { uidBase: 5000, gidBase: 6000, size: 65_536 };
    void driver(dead.host).mountVolume(V, map, signal());
    await dead.died;

    const { rootfsPath, owners } = await driver(shifting).mountVolume({ ...V, forReading: true }, null, signal());

    expect(idMapKey(owners)).toBe(expected);
    const { uid, gid } = await stat(join(rootfsPath, 'f'));
    expect([uid, gid]).toEqual([owners?.uidBase ?? 0, owners?.gidBase ?? 0]);
    await driver(shifting).mountVolume(V, map, signal());
    expect((await stat(join(rootfsPath, 'f'))).uid).toBe(5000);
    expect(await names('custom')).toEqual([`${ZPOOL}/custom/v`]);
    await driver().deleteVolume(V, signal());
  });

  it('keeps nothing of a copy with snapshots that was cut off', async () => {
    await driver().createVolume({ ...V, idMap: null }, signal());
    await driver().createSnapshot(V, 'a', signal());
    const dead = dying(host, /^zfs rename/);
    void driver(dead.host).copyVolume?.({ from: V, snapshots: ['a'], to: { ...W, idMap: null } }, signal());
    await dead.died;

    await driver().openPool(signal());

    expect(await names('custom')).toEqual([`${ZPOOL}/custom/v`, `${ZPOOL}/custom/v@snapshot-a`]);
    expect(await names('work')).toEqual([]);
    await driver().deleteVolume(V, signal());
  });
});
