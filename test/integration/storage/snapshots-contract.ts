// What drivers with snapshots promise of them; on real machines only.
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { FINGERPRINT, MAP, signal, type TestPool, withImage } from '#test/contract/storage-contract.ts';

const C1 = { kind: 'container', name: 'c1' } as const;
const C2 = { kind: 'container', name: 'c2' } as const;

export function storageSnapshotsContract(newPool: () => Promise<TestPool>): void {
  const pooled = async (): Promise<TestPool> => {
    const pool = await withImage(newPool);
    await pool.driver.createVolume({ ...C1, image: FINGERPRINT, idMap: MAP }, signal());
    return pool;
  };
  const write = async ({ driver }: TestPool, text: string): Promise<void> => {
    const root = await driver.mountVolume(C1, MAP, signal());
    await writeFile(join(root.rootfsPath, 'state'), text);
    await driver.unmountVolume(C1, signal());
  };
  const read = async ({ driver }: TestPool, volume: typeof C1 | typeof C2, snapshot?: string): Promise<string> => {
    const root =
      snapshot === undefined
        ? await driver.mountVolume(volume, MAP, signal())
        : await driver.mountSnapshot({ volume, snapshot, idMap: MAP }, signal());
    const image = await readFile(join(root.rootfsPath, 'hello'), 'utf8');
    const text = await readFile(join(root.rootfsPath, 'state'), 'utf8').catch(() => '');
    if (snapshot === undefined) await driver.unmountVolume(volume, signal());
    else await driver.unmountSnapshot(volume, snapshot, signal());
    return `${image.trim()}: ${text}`;
  };

  it('keeps what a volume was, and brings it back', async () => {
    await using pool = await pooled();
    const { driver } = pool;
    await write(pool, 'one');
    await driver.createSnapshot(C1, 'a', signal());
    await write(pool, 'two');
    await driver.createSnapshot(C1, 'b', signal());
    await write(pool, 'three');

    expect(await read(pool, C1, 'a')).toBe('of the image: one');
    expect(await read(pool, C1, 'b')).toBe('of the image: two');
    const later = (await driver.laterSnapshots?.(C1, 'a', signal()))?.names ?? [];
    if (later.length > 0) {
      await expect(driver.restoreSnapshot(C1, 'a', signal())).rejects.toThrow('override: b');
      expect(await read(pool, C1)).toBe('of the image: three');
      await driver.restoreSnapshot(C1, 'b', signal());
      expect(await read(pool, C1)).toBe('of the image: two');
      await driver.deleteSnapshot(C1, 'b', signal());
    }
    await driver.restoreSnapshot(C1, 'a', signal());

    expect(await read(pool, C1)).toBe('of the image: one');
    expect((await driver.listSnapshots(C1, signal())).toSorted()).toEqual(later.length > 0 ? ['a'] : ['a', 'b']);
    if (later.length === 0) expect(await read(pool, C1, 'b')).toBe('of the image: two');
  });

  it('refuses a name that is taken, and deletes what is not there', async () => {
    await using pool = await pooled();
    const { driver } = pool;
    await driver.createSnapshot(C1, 'a', signal());

    await expect(driver.createSnapshot(C1, 'a', signal())).rejects.toMatchObject({ kind: 'conflict' });
    await driver.deleteSnapshot(C1, 'nope', signal());
    await driver.renameSnapshot({ volume: C1, snapshot: 'a', newName: 'b' }, signal());
    expect(await driver.listSnapshots(C1, signal())).toEqual(['b']);
    await driver.deleteSnapshot(C1, 'b', signal());

    expect(await driver.listSnapshots(C1, signal())).toEqual([]);
  });

  it('copies a volume with its snapshots, or one of them', async () => {
    await using pool = await pooled();
    const { driver } = pool;
    await write(pool, 'one');
    await driver.createSnapshot(C1, 'a', signal());
    await write(pool, 'two');
    const to = { idMap: MAP };

    await driver.copyVolume?.({ from: C1, snapshots: ['a'], to: { ...C2, ...to } }, signal());
    const then = { kind: 'container', name: 'c3' } as const;
    await driver.copyVolume?.({ from: C1, snapshot: 'a', snapshots: [], to: { ...then, ...to } }, signal());
    await write(pool, 'later');

    expect(await read(pool, C2)).toBe('of the image: two');
    expect(await read(pool, C2, 'a')).toBe('of the image: one');
    expect(await read(pool, then as unknown as typeof C2)).toBe('of the image: one');
  });

  it('takes snapshots along when a volume gets another name, and away with it', async () => {
    await using pool = await pooled();
    const { driver } = pool;
    await write(pool, 'one');
    await driver.createSnapshot(C1, 'a', signal());

    await driver.renameVolume(C1, 'c2', signal());
    expect(await read(pool, C2, 'a')).toBe('of the image: one');
    await driver.deleteVolume(C2, signal());

    expect(await readdir(join(pool.poolPath, 'containers-snapshots'))).toEqual([]);
    expect(await driver.listSnapshots(C2, signal())).toEqual([]);
  });

  it('keeps an image that only a snapshot needs', async () => {
    await using pool = await pooled();
    const { driver } = pool;
    await driver.createSnapshot(C1, 'a', signal());

    await driver.deleteImage(FINGERPRINT, signal());

    expect(await read(pool, C1, 'a')).toBe('of the image: ');
  });
}
