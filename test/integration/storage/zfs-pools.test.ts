// Where zfs pools lie: on pools and datasets that are there already, and what becomes of those.
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/log.ts';
import { storageDrivers } from '#drivers/storage/registry.ts';
import type { StorageDriver } from '#drivers/storage/driver.ts';
import { signal } from '#test/contract/storage-contract.ts';
import { describeWith } from '#test/integration/support.ts';
import { timeFactor } from '#test/time-factor.ts';

const ZPOOL = `t${randomUUID().slice(0, 8)}`;

describeWith({ root: true, commands: ['zpool', 'zfs'] }, 'zfs pools on what is there', () => {
  const host = new LinuxHost();
  let work = '';

  beforeAll(async () => {
    work = (await host.run(['mktemp', '-d', '/var/tmp/lighter-zfs-XXXXXX'])).stdout.trim();
    await host.run(['truncate', '-s', '256M', join(work, 'disk')]);
    await host.run(['zpool', 'create', '-m', 'none', ZPOOL, join(work, 'disk')]);
  });
  afterAll(async () => {
    await host.run(['zpool', 'destroy', '-f', ZPOOL]);
    await host.removeTree(work);
  });

  const on = (config: Readonly<Record<string, string>>): StorageDriver => {
    const paths = { poolPath: join(work, 'pool'), disksPath: join(work, 'disks') };
    return storageDrivers.zfs.create({ host, log: silentLog, pool: 'p', ...paths, config });
  };
  const datasets = async (): Promise<readonly string[]> => {
    const { stdout } = await host.run(['zfs', 'list', '-H', '-r', '-o', 'name', ZPOOL]);
    return stdout.split('\n').filter((name) => name !== '');
  };

  it('are made in a pool, as a dataset of their own that goes with them', async () => {
    const driver = on({ source: `${ZPOOL}/ours` });

    await driver.createPool(signal());

    expect(await driver.recordedConfig?.(signal())).toMatchObject({ 'zfs.pool_name': `${ZPOOL}/ours` });
    expect(await datasets()).toContain(`${ZPOOL}/ours/containers`);
    await driver.deletePool(signal());
    expect(await datasets()).toEqual([ZPOOL]);
  });

  it('adopt a whole pool, and give it back', async () => {
    const driver = on({ source: ZPOOL });
    await driver.createPool(signal());
    await driver.createVolume({ kind: 'custom', name: 'v', idMap: null }, signal());
    await driver.deleteVolume({ kind: 'custom', name: 'v' }, signal());

    await driver.deletePool(signal());

    expect(await datasets()).toEqual([ZPOOL]);
  });

  it('refuse what has something in it, in LXD’s words, and leave it alone', async () => {
    await host.run(['zfs', 'create', `${ZPOOL}/precious`]);

    await expect(on({ source: ZPOOL }).createPool(signal())).rejects.toThrow(
      `Provided ZFS pool (or dataset) isn't empty, run "sudo zfs list -r ${ZPOOL}" to see existing entries`,
    );

    expect(await datasets()).toEqual([ZPOOL, `${ZPOOL}/precious`]);
    await host.run(['zfs', 'destroy', `${ZPOOL}/precious`]);
  });

  it('are unavailable while their pool is missing, and come back with it', async () => {
    const driver = on({ source: `${ZPOOL}/ours` });
    await driver.createPool(signal());
    await host.run(['zpool', 'export', ZPOOL]);

    await expect(on({ source: `${ZPOOL}/ours` }).openPool(signal())).rejects.toMatchObject({ kind: 'unavailable' });

    await host.run(['zpool', 'import', '-d', work, ZPOOL]);
    await on({ source: `${ZPOOL}/ours` }).openPool(signal());
    await driver.deletePool(signal());
  });

  it(
    'grow with their file, also when they are used meanwhile',
    async () => {
      const name = `${ZPOOL}g`;
      const sized = (size: string): StorageDriver => on({ size, 'zfs.pool_name': name });
      const total = async (): Promise<number> => (await sized('').poolUsage(signal())).totalBytes;
      await sized('128MiB').createPool(signal());
      try {
        const before = await total();

        await sized('256MiB').changePool?.({ size: '128MiB' }, signal());

        expect(await total()).toBeGreaterThan(before * 1.5);
        expect(await sized('').recordedConfig?.(signal())).toMatchObject({ size: String(256 << 20) });
        await expect(sized('200MiB').changePool?.({ size: '256MiB' }, signal())).rejects.toThrow('cannot be reduced');
        const volume = { kind: 'custom', name: 'v', idMap: null } as const;
        await sized('').createVolume(volume, signal());
        await sized('').mountVolume(volume, null, signal());
        await sized('384MiB').changePool?.({ size: '256MiB' }, signal());
        await sized('').deleteVolume(volume, signal());
        await host.run(['zpool', 'export', name]);
        await sized('384MiB').openPool(signal());
        expect(await total()).toBeGreaterThan(before * 2.3);
      } finally {
        await sized('').deletePool(signal());
      }
    },
    120_000 * timeFactor(),
  );
});
