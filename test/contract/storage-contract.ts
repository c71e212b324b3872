// What every storage driver promises, whatever it runs on.
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { kindOf } from '#src/lib/errors.ts';
import type { Host } from '#src/host/host.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import type { StorageDriver, Unpack } from '#drivers/storage/driver.ts';
import { timeFactor } from '#test/time-factor.ts';

export interface TestPool extends AsyncDisposable {
  readonly host: Host;
  readonly driver: StorageDriver;
  readonly poolPath: string;
  /** A driver of the same pool as a daemon has it that was killed and started again. */
  restarted(): StorageDriver;
  /** Names of everything that is left of the pool on the machine. */
  remains(): Promise<readonly string[]>;
}

export const FINGERPRINT = 'f'.repeat(64);
export const OTHER_FINGERPRINT = 'e'.repeat(64);
export const MAP: IdMapRange = { uidBase: 100_000, gidBase: 100_000, size: 65_536 };

export const signal = (): AbortSignal => AbortSignal.timeout(100_000 * timeFactor());

/** A small image, made through the port so that it works on the fake machine as well. */
export function smallImage(host: Host): Unpack {
  return async (directory, owners) => {
    await host.writeFile(join(directory, 'metadata.yaml'), 'architecture: x86_64\n');
    await host.makeDirectory(join(directory, 'templates'));
    await host.writeFile(join(directory, 'templates', 'hostname.tpl'), '{{ container.name }}\n');
    await host.makeDirectory(join(directory, 'rootfs'), { mode: 0o755 });
    await host.writeFile(join(directory, 'rootfs', 'hello'), 'of the image\n');
    await host.shiftOwners(join(directory, 'rootfs'), { from: null, to: owners }, signal());
  };
}

/** A pool with the small image in it. */
export async function withImage(newPool: () => Promise<TestPool>): Promise<TestPool> {
  const pool = await newPool();
  await pool.driver.createPool(signal());
  await pool.driver.createImage(FINGERPRINT, smallImage(pool.host), signal());
  return pool;
}

async function failure(work: Promise<unknown>): Promise<string> {
  return await work.then(
    () => 'none',
    (error: unknown) => (kindOf(error) === 'internal' ? String(error) : kindOf(error)),
  );
}

/** `newPool` gives a pool that is not made yet; its disposal removes whatever is left of it. */
export function storageContract(newPool: () => Promise<TestPool>): void {
  const instance = (name: string) => ({ name, image: FINGERPRINT, idMap: MAP });

  it('refuses to make a pool where one is', async () => {
    await using pool = await withImage(newPool);

    expect(await failure(pool.restarted().createPool(signal()))).toBe('conflict');

    expect(await pool.driver.listImages(signal())).toEqual([FINGERPRINT]);
  });

  it('leaves nothing of a pool that is deleted', async () => {
    await using pool = await withImage(newPool);
    await pool.driver.createInstance(instance('c1'), signal());
    await pool.driver.mountInstance('c1', MAP, signal());
    await pool.driver.deleteInstance('c1', signal());
    await pool.driver.deleteImage(FINGERPRINT, signal());

    await pool.driver.deletePool(signal());

    expect(await pool.remains()).toEqual([]);
  });

  it('does not delete a pool that has an instance or an image', async () => {
    await using pool = await withImage(newPool);
    expect(await failure(pool.driver.deletePool(signal()))).toBe('conflict');
    await pool.driver.createInstance(instance('c1'), signal());
    await pool.driver.deleteImage(FINGERPRINT, signal());

    expect(await failure(pool.driver.deletePool(signal()))).toBe('conflict');

    expect(await pool.driver.listInstances(signal())).toEqual(['c1']);
  });

  it('opens a pool again and again', async () => {
    await using pool = await withImage(newPool);
    await pool.driver.createInstance(instance('c1'), signal());

    await pool.driver.openPool(signal());
    await pool.restarted().openPool(signal());

    expect(await pool.restarted().listInstances(signal())).toEqual(['c1']);
    expect(await pool.restarted().hasImage(FINGERPRINT, signal())).toBe(true);
  });

  it('tells how full the pool is', async () => {
    await using pool = await withImage(newPool);

    const { totalBytes, usedBytes } = await pool.driver.poolUsage(signal());

    expect(totalBytes).toBeGreaterThan(usedBytes);
    expect(usedBytes).toBeGreaterThan(0);
  });

  it('refuses an image that exists, without unpacking it', async () => {
    await using pool = await withImage(newPool);
    let unpacked = false;

    const again = pool.driver.createImage(FINGERPRINT, async () => void (unpacked = true), signal());

    expect(await failure(again)).toBe('conflict');
    expect(unpacked).toBe(false);
  });

  it('publishes nothing of an image that fails to unpack', async () => {
    await using pool = await withImage(newPool);
    const half: Unpack = async (directory, owners) => {
      await smallImage(pool.host)(directory, owners);
      throw new Error('the disk is full');
    };

    await expect(pool.driver.createImage(OTHER_FINGERPRINT, half, signal())).rejects.toThrow('the disk is full');

    expect(await pool.driver.hasImage(OTHER_FINGERPRINT, signal())).toBe(false);
    expect(await pool.driver.listImages(signal())).toEqual([FINGERPRINT]);
    await pool.driver.createImage(OTHER_FINGERPRINT, smallImage(pool.host), signal());
    expect(await pool.driver.listImages(signal())).toEqual([OTHER_FINGERPRINT, FINGERPRINT]);
  });

  it('refuses an image without a rootfs', async () => {
    await using pool = await withImage(newPool);
    const empty: Unpack = (directory) => pool.host.writeFile(join(directory, 'metadata.yaml'), 'a: 1\n');

    expect(await failure(pool.driver.createImage(OTHER_FINGERPRINT, empty, signal()))).toBe('invalid');

    expect(await pool.driver.listImages(signal())).toEqual([FINGERPRINT]);
  });

  it('knows nothing of an image whose daemon was killed in the middle, and makes it anew', async () => {
    await using pool = await withImage(newPool);
    const { promise: reached, resolve: reach } = Promise.withResolvers<void>();
    const { promise: never } = Promise.withResolvers<void>();
    const stuck: Unpack = async (directory, owners) => {
      await smallImage(pool.host)(directory, owners);
      reach();
      await never;
    };
    void pool.driver.createImage(OTHER_FINGERPRINT, stuck, signal());
    await reached;

    const restarted = pool.restarted();
    await restarted.openPool(signal());

    expect(await restarted.hasImage(OTHER_FINGERPRINT, signal())).toBe(false);
    await restarted.createImage(OTHER_FINGERPRINT, smallImage(pool.host), signal());
    expect(await restarted.hasImage(OTHER_FINGERPRINT, signal())).toBe(true);
  });

  it('deletes an image twice', async () => {
    await using pool = await withImage(newPool);

    await pool.driver.deleteImage(FINGERPRINT, signal());
    await pool.driver.deleteImage(FINGERPRINT, signal());

    expect(await pool.driver.listImages(signal())).toEqual([]);
  });

  it('lets an image go while instances use it, and revives it when it is wanted again', async () => {
    await using pool = await withImage(newPool);
    await pool.driver.createInstance(instance('c1'), signal());

    await pool.driver.deleteImage(FINGERPRINT, signal());

    expect(await pool.driver.hasImage(FINGERPRINT, signal())).toBe(false);
    expect(await pool.driver.listImages(signal())).toEqual([]);
    expect(await failure(pool.driver.createInstance(instance('c2'), signal()))).toBe('not_found');
    await pool.driver.mountInstance('c1', MAP, signal());
    await pool.driver.createImage(FINGERPRINT, smallImage(pool.host), signal());
    await pool.driver.createInstance(instance('c2'), signal());
    expect(await pool.driver.listInstances(signal())).toEqual(['c1', 'c2']);
  });

  it('drops a deleted image with the last of its instances', async () => {
    await using pool = await withImage(newPool);
    await pool.driver.createInstance(instance('c1'), signal());
    await pool.driver.createInstance(instance('c2'), signal());
    await pool.driver.deleteImage(FINGERPRINT, signal());
    await pool.driver.deleteInstance('c1', signal());
    await pool.driver.mountInstance('c2', MAP, signal());

    await pool.driver.deleteInstance('c2', signal());

    await pool.driver.deletePool(signal());
    expect(await pool.remains()).toEqual([]);
  });

  it('refuses an instance that exists, and leaves it alone', async () => {
    await using pool = await withImage(newPool);
    await pool.driver.createInstance(instance('c1'), signal());

    expect(await failure(pool.driver.createInstance({ name: 'c1', idMap: null }, signal()))).toBe('conflict');
    expect(await failure(pool.driver.createInstance(instance('c1'), signal()))).toBe('conflict');

    expect(await pool.driver.listInstances(signal())).toEqual(['c1']);
    await pool.driver.mountInstance('c1', MAP, signal());
  });

  it('refuses an instance of an image that is not there', async () => {
    await using pool = await withImage(newPool);

    const create = pool.driver.createInstance({ name: 'c1', image: OTHER_FINGERPRINT, idMap: MAP }, signal());

    expect(await failure(create)).toBe('not_found');
    expect(await pool.driver.listInstances(signal())).toEqual([]);
  });

  it('leaves nothing of an instance whose creation is cut off', async () => {
    await using pool = await withImage(newPool);

    await expect(pool.driver.createInstance(instance('c1'), AbortSignal.abort())).rejects.toThrow();

    expect(await pool.driver.listInstances(signal())).toEqual([]);
    await pool.driver.createInstance(instance('c1'), signal());
  });

  it('makes ten instances side by side', async () => {
    await using pool = await withImage(newPool);
    const names = Array.from({ length: 10 }, (_none, index) => `c${index}`);

    await Promise.all(
      names.map(async (name) => {
        await pool.driver.createInstance(instance(name), signal());
        await pool.driver.mountInstance(name, MAP, signal());
      }),
    );

    expect(await pool.driver.listInstances(signal())).toEqual(names);
    await Promise.all(names.map((name) => pool.driver.deleteInstance(name, signal())));
    expect(await pool.driver.listInstances(signal())).toEqual([]);
  });

  it('lets one of several that want the same name have it', async () => {
    await using pool = await withImage(newPool);

    const results = await Promise.all(
      Array.from({ length: 4 }, () => failure(pool.driver.createInstance(instance('c1'), signal()))),
    );

    expect(results.sort()).toEqual(['conflict', 'conflict', 'conflict', 'none']);
  });

  it('deletes an instance twice', async () => {
    await using pool = await withImage(newPool);
    await pool.driver.createInstance(instance('c1'), signal());

    await pool.driver.deleteInstance('c1', signal());
    await pool.driver.deleteInstance('c1', signal());

    expect(await pool.driver.listInstances(signal())).toEqual([]);
    await pool.driver.createInstance(instance('c1'), signal());
  });

  it('renames an instance, but not onto another', async () => {
    await using pool = await withImage(newPool);
    await pool.driver.createInstance(instance('c1'), signal());
    await pool.driver.createInstance(instance('c2'), signal());
    await pool.driver.mountInstance('c1', MAP, signal());

    expect(await failure(pool.driver.renameInstance('c1', 'c2', signal()))).toBe('conflict');
    await pool.driver.renameInstance('c1', 'c3', signal());

    expect(await pool.driver.listInstances(signal())).toEqual(['c2', 'c3']);
    const { rootfsPath } = await pool.driver.mountInstance('c3', MAP, signal());
    expect(rootfsPath).toBe(join(pool.poolPath, 'containers', 'c3', 'rootfs'));
  });

  it('mounts and unmounts twice, and unmounts what is absent', async () => {
    await using pool = await withImage(newPool);
    await pool.driver.createInstance(instance('c1'), signal());

    const first = await pool.driver.mountInstance('c1', MAP, signal());
    const second = await pool.driver.mountInstance('c1', MAP, signal());
    await pool.driver.unmountInstance('c1', signal());
    await pool.driver.unmountInstance('c1', signal());
    await pool.driver.unmountInstance('c9', signal());

    expect(second).toEqual(first);
    expect(first.rootfsPath).toBe(join(pool.poolPath, 'containers', 'c1', 'rootfs'));
  });

  it('does not mount an instance that is not there', async () => {
    await using pool = await withImage(newPool);

    expect(await failure(pool.driver.mountInstance('c1', MAP, signal()))).toBe('not_found');
  });

  it('changes sizes, or says that it cannot', async () => {
    await using pool = await withImage(newPool);
    await pool.driver.createInstance({ ...instance('c1'), sizeBytes: 200 * 2 ** 20 }, signal());
    const expected = pool.driver.info.quotas ? 'none' : 'unsupported';

    expect(await failure(pool.driver.resizeInstance('c1', 300 * 2 ** 20, signal()))).toBe(expected);
    expect(await failure(pool.driver.resizeInstance('c1', undefined, signal()))).toBe(expected);
  });

  it.each(['../c1', 'a/b', '', '.hidden', 'a..b'])('refuses the name %j', async (name) => {
    await using pool = await withImage(newPool);

    expect(await failure((async () => await pool.driver.createInstance(instance(name), signal()))())).toBe('invalid');
    expect(await failure((async () => await pool.driver.deleteInstance(name, signal()))())).toBe('invalid');
  });
}
