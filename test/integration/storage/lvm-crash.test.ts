// Daemons that are killed between two commands of one step on lvm: the next start finishes it, or leaves nothing of it.
import { randomUUID } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Host } from '#src/host/host.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { Lvm } from '#src/host/lvm.ts';
import { silentLog } from '#src/lib/log.ts';
import { storageDrivers } from '#drivers/storage/registry.ts';
import type { StorageDriver } from '#drivers/storage/driver.ts';
import { signal } from '#test/contract/storage-contract.ts';
import { describeWith } from '#test/integration/support.ts';
import { dying } from './dying-host.ts';

const GROUP = `t${randomUUID().slice(0, 8)}`;
const V = { kind: 'custom', name: 'v' } as const;
const W = { kind: 'custom', name: 'w' } as const;

const commands = ['lvcreate', 'thin_check', 'mkfs.ext4', 'losetup'];

describeWith({ root: true, deviceMapper: true, commands }, 'lvm and a daemon that is killed', () => {
  const host = new LinuxHost();
  let work = '';
  const driver = (on: Host = host): StorageDriver => {
    const paths = { poolPath: join(work, 'pool'), disksPath: join(work, 'disks') };
    const config = { size: '256MiB', 'volume.size': '32MiB', 'lvm.vg_name': GROUP };
    return storageDrivers.lvm.create({ host: on, log: silentLog, pool: 'p', ...paths, config });
  };
  const write = async (text: string): Promise<void> => {
    const { rootfsPath } = await driver().mountVolume(V, null, signal());
    await writeFile(join(rootfsPath, 'f'), text);
  };
  const read = async (): Promise<string> => {
    const { rootfsPath } = await driver().mountVolume(V, null, signal());
    return readFile(join(rootfsPath, 'f'), 'utf8');
  };
  const names = async (): Promise<readonly string[]> => {
    const volumes = await new Lvm(host).volumes(GROUP, signal());
    return volumes.filter(({ isThinPool }) => !isThinPool).map(({ name, tags }) => [name, ...tags].join(' '));
  };

  beforeAll(async () => {
    work = (await host.run(['mktemp', '-d', '/var/tmp/lighter-lvm-XXXXXX'])).stdout.trim();
    await driver().createPool(signal());
  });
  afterAll(async () => {
    await driver().deletePool(signal());
    await host.removeTree(work);
  });

  it.each([
    ['before the clone is made', /^lvcreate .*--snapshot/, 'two'],
    ['before the old one is out of the way', /^lvrename .* custom_v lighter_waste/, 'two'],
    ['before the clone is in its place', /^lvrename .* custom_v$/, 'one'],
    ['at the end', /^lvchange .*--deltag lighter_replaces/, 'one'],
    ['before the old one is removed', /^lvremove .*lighter_waste/, 'one'],
  ])('has a volume whole whose restore was cut off: %s', async (_when, at, expected) => {
    await driver().createVolume({ ...V, idMap: null }, signal());
    await write('one');
    await driver().createSnapshot(V, 'a', signal());
    await write('two');
    const dead = dying(host, at);
    void driver(dead.host).restoreSnapshot(V, 'a', signal());
    await dead.died;

    await driver().openPool(signal());

    expect(await names()).toEqual(['custom_v', 'custom_v-a']);
    expect(await read()).toBe(expected);
    await driver().deleteVolume(V, signal());
    expect(await names()).toEqual([]);
  });

  it.each([
    ['before its first snapshot', /^lvcreate .*--name custom_w-a/],
    ['before the volume', /^lvcreate .*--permission rw/],
    ['before it is published', /^lvrename/],
  ])('keeps nothing of a copy with snapshots that was cut off: %s', async (_when, at) => {
    await driver().createVolume({ ...V, idMap: null }, signal());
    await driver().createSnapshot(V, 'a', signal());
    const dead = dying(host, at);
    void driver(dead.host).copyVolume?.({ from: V, snapshots: ['a'], to: { ...W, idMap: null } }, signal());
    await dead.died;

    await driver().openPool(signal());

    expect(await names()).toEqual(['custom_v', 'custom_v-a']);
    await driver().deleteVolume(V, signal());
  });

  it('keeps a copy that only had a tag too many', async () => {
    await driver().createVolume({ ...V, idMap: null }, signal());
    await driver().createSnapshot(V, 'a', signal());
    const dead = dying(host, /^lvchange .*--deltag lighter_unfinished/);
    void driver(dead.host).copyVolume?.({ from: V, snapshots: ['a'], to: { ...W, idMap: null } }, signal());
    await dead.died;

    await driver().openPool(signal());

    expect(await names()).toEqual(['custom_v', 'custom_v-a', 'custom_w', 'custom_w-a']);
    for (const volume of [V, W]) await driver().deleteVolume(volume, signal());
  });

  it('keeps nothing of a volume that was not finished', async () => {
    const dead = dying(host, /^lvrename/);
    void driver(dead.host).createVolume({ ...V, idMap: null }, signal());
    await dead.died;
    expect(await names()).toHaveLength(1);

    await driver().openPool(signal());

    expect(await names()).toEqual([]);
  });
});
