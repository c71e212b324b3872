// Sizes of volumes on zfs by what they do to whoever writes, and datasets that somebody keeps busy.
import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { StorageDriver, VolumeConfig, VolumeRef } from '#drivers/storage/driver.ts';
import { signal } from '#test/contract/storage-contract.ts';
import { describeWith, hasKernelZfs, onKernelsWith } from '#test/integration/support.ts';
import { type Machine, zfsMachine } from './real-pools.ts';
import type { RealPool } from './storage-files-contract.ts';

const MIB = 2 ** 20;
const V: VolumeRef = { kind: 'custom', name: 'v' };
const daemon = hasKernelZfs ? [] : ['zfs-fuse'];

describeWith({ root: true, commands: ['zpool', 'zfs', ...daemon] }, 'volumes on zfs', () => {
  let machine: Machine;

  beforeAll(async () => {
    machine = await zfsMachine();
  });
  afterAll(() => machine[Symbol.asyncDispose]());

  async function withVolume(config: VolumeConfig, sizeBytes?: number): Promise<RealPool> {
    const pool = await machine.newPool();
    await pool.driver.createPool(signal());
    const size = sizeBytes === undefined ? {} : { sizeBytes };
    await pool.driver.createVolume({ ...V, config, idMap: null, ...size }, signal());
    return pool;
  }

  /** How the write ended. */
  async function write({ driver, host }: RealPool, name: string, megabytes: number): Promise<string> {
    const { rootfsPath } = await driver.mountVolume(V, null, signal());
    const file = await open(join(rootfsPath, name), 'w');
    try {
      for (let written = 0; written < megabytes; written += 1) {
        await file.write(randomBytes(MIB));
        await file.sync();
      }
      return 'written';
    } catch (error) {
      // Node has no name for it.
      return (error as NodeJS.ErrnoException).errno === -122 ? 'EDQUOT' : String(error);
    } finally {
      await file.close();
      await host.run(['sync', '-f', rootfsPath]);
    }
  }

  it('hold no more than their size, and more when it grows', async () => {
    await using pool = await withVolume({}, 16 * MIB);

    expect(await write(pool, 'a', 24)).toBe('EDQUOT');
    await pool.driver.resizeVolume(V, 64 * MIB, signal());
    expect(await write(pool, 'a', 24)).toBe('written');
    await pool.driver.resizeVolume(V, undefined, signal());
    expect(await write(pool, 'b', 64)).toBe('written');
  });

  it.each([
    ['count', {}, 'EDQUOT'],
    ['do not count', { 'zfs.use_refquota': 'true' }, 'written'],
  ] as const)('have snapshots that %s', async (_how, config, expected) => {
    await using pool = await withVolume(config, 32 * MIB);
    expect(await write(pool, 'a', 20)).toBe('written');
    await pool.driver.createSnapshot(V, 's', signal());

    const { rootfsPath } = await pool.driver.mountVolume(V, null, signal());
    await pool.host.removeTree(join(rootfsPath, 'a'));

    expect(await write(pool, 'b', 20)).toBe(expected);
  });

  it('take their size from the pool at once when it is reserved', async () => {
    await using pool = await withVolume({}, 100 * MIB);
    const free = async (driver: StorageDriver): Promise<number> => {
      const { totalBytes, usedBytes, availableBytes } = await driver.poolUsage(signal());
      return availableBytes ?? totalBytes - usedBytes;
    };
    const before = await free(pool.driver);

    const change = { config: { 'zfs.reserve_space': 'true' }, sizeBytes: 100 * MIB };
    await pool.driver.configureVolume?.(V, change, signal());

    expect(before - (await free(pool.driver))).toBeGreaterThan(90 * MIB);
    await pool.driver.configureVolume?.(V, { config: {}, sizeBytes: 100 * MIB }, signal());
    expect(before - (await free(pool.driver))).toBeLessThan(10 * MIB);
  });

  // zfs-fuse refuses to rename them.
  const test = it.runIf(onKernelsWith(hasKernelZfs));
  test('are restored, renamed and deleted with their snapshots while somebody is still in them', async () => {
    await using pool = await withVolume({});
    const { driver, host } = pool;
    const root = await driver.mountVolume(V, null, signal());
    await writeFile(join(root.rootfsPath, 'f'), 'one');
    await driver.createSnapshot(V, 's', signal());
    const seen = await driver.mountSnapshot({ volume: V, snapshot: 's', idMap: null }, signal());
    const stop = new AbortController();
    const watchers = [root, seen].map(({ rootfsPath }) =>
      host.start(['sleep', '600'], { cwd: rootfsPath, signal: stop.signal }).done.catch(() => undefined),
    );

    await driver.unmountSnapshot(V, 's', signal());
    await driver.unmountVolume(V, signal());
    await driver.restoreSnapshot(V, 's', signal());
    await driver.renameVolume(V, 'w', signal());
    const w: VolumeRef = { kind: 'custom', name: 'w' };
    await driver.deleteSnapshot(w, 's', signal());
    expect(await driver.listSnapshots(w, signal())).toEqual([]);
    await driver.deleteVolume(w, signal());

    expect(await driver.listVolumes('custom', signal())).toEqual([]);
    stop.abort();
    await Promise.all(watchers);
    await pool.restarted().openPool(signal());
    await pool.driver.deletePool(signal());
    expect(await pool.remains()).toEqual([]);
  });
});
