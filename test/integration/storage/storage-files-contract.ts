// What every storage driver promises of the files of its instances; on real machines only.
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { Host } from '#src/host/host.ts';
import type { MountedRoot, StorageDriver, Unpack } from '#drivers/storage/driver.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import { unpackImage } from '#src/host/unpack/image.ts';
import {
  FINGERPRINT,
  MAP,
  OTHER_FINGERPRINT,
  signal,
  smallImage,
  type TestPool,
  withImage,
} from '#test/contract/storage-contract.ts';

export interface RealPool extends TestPool {
  /** Takes every mount of the pool away, as a reboot does. */
  reboot(): Promise<void>;
  /** Whether the file system keeps extended attributes. */
  readonly xattrs: boolean;
}

const OTHER_MAP: IdMapRange = { uidBase: 900_000, gidBase: 950_000, size: 65_536 };
const LIMITS = { maxBytes: 100 * 2 ** 20, maxEntries: 10_000 };

/** Container uid 0 as this host sees it under a root. */
function rootUid({ owners }: MountedRoot): number {
  return owners?.uidBase ?? 0;
}

/** An image as it comes from an image server, with what is hard to keep: setuid, a capability, a hard link, odd owners. */
async function realImage(host: Host, folder: string): Promise<Unpack> {
  const source = join(folder, 'source');
  await mkdir(join(source, 'rootfs', 'bin'), { recursive: true });
  await writeFile(join(source, 'metadata.yaml'), 'architecture: x86_64\n');
  await writeFile(join(source, 'rootfs', 'bin', 'su'), 'program');
  await writeFile(join(source, 'rootfs', 'bin', 'ping'), 'program');
  await writeFile(join(source, 'rootfs', 'owned'), 'by 1000:1001');
  await host.run(['chown', '1000:1001', join(source, 'rootfs', 'owned')]);
  await host.run(['chmod', '4755', join(source, 'rootfs', 'bin', 'su')]);
  await host.run(['ln', join(source, 'rootfs', 'bin', 'su'), join(source, 'rootfs', 'bin', 'sudo')]);
  await host.run(['setcap', 'cap_net_raw+ep', join(source, 'rootfs', 'bin', 'ping')]);
  await host.run(['tar', '--xattrs', '--xattrs-include=*', '-C', source, '-cf', join(folder, 'image.tar'), '.']);
  return async (directory, owners) => {
    const files = { metadata: join(folder, 'image.tar') };
    await unpackImage(host, files, { directory, owners }, { limits: LIMITS, signal: signal() });
  };
}

export function storageFilesContract(newPool: () => Promise<RealPool>): void {
  const pooled = async (): Promise<RealPool> => (await withImage(newPool)) as RealPool;
  const make = async (driver: StorageDriver, name: string): Promise<MountedRoot> => {
    await driver.createInstance({ name, image: FINGERPRINT, idMap: MAP }, signal());
    return await driver.mountInstance(name, MAP, signal());
  };

  it('shows the image with the owners that it announces', async () => {
    await using pool = await pooled();

    const root = await make(pool.driver, 'c1');

    expect(await readFile(join(root.rootfsPath, 'hello'), 'utf8')).toBe('of the image\n');
    expect((await stat(root.rootfsPath)).uid).toBe(rootUid(root));
    expect((await stat(join(root.rootfsPath, 'hello'))).uid).toBe(rootUid(root));
    expect(root.owners === null ? root.rootfsOptions : MAP.uidBase).toBe(root.owners?.uidBase ?? 'idmap=container');
  });

  it('keeps metadata and templates beside the root', async () => {
    await using pool = await pooled();
    await make(pool.driver, 'c1');
    const path = join(pool.poolPath, 'containers', 'c1');

    expect(await readFile(join(path, 'metadata.yaml'), 'utf8')).toBe('architecture: x86_64\n');
    expect(await readFile(join(path, 'templates', 'hostname.tpl'), 'utf8')).toContain('container.name');
  });

  it('lets none but the root of the container into the folder of an instance', async () => {
    await using pool = await pooled();
    await make(pool.driver, 'c1');

    const { mode, uid } = await stat(join(pool.poolPath, 'containers', 'c1'));

    expect(mode & 0o777).toBe(0o100);
    expect(uid).toBe(MAP.uidBase);
  });

  it('keeps what instances write apart from each other and from the image', async () => {
    await using pool = await pooled();
    const [one, two] = [await make(pool.driver, 'c1'), await make(pool.driver, 'c2')];

    await writeFile(join(one.rootfsPath, 'hello'), 'changed');
    await writeFile(join(one.rootfsPath, 'new'), 'new');

    expect(await readFile(join(two.rootfsPath, 'hello'), 'utf8')).toBe('of the image\n');
    const three = await make(pool.driver, 'c3');
    expect(await pool.host.list(three.rootfsPath)).toEqual(['hello']);
  });

  it('keeps setuid, owners, hard links and capabilities of a real image', async () => {
    await using pool = await pooled();
    await using folder = await temporaryFolder(pool.host);
    await pool.driver.createImage(OTHER_FINGERPRINT, await realImage(pool.host, folder.path), signal());

    await pool.driver.createInstance({ name: 'c1', image: OTHER_FINGERPRINT, idMap: MAP }, signal());
    const root = await pool.driver.mountInstance('c1', MAP, signal());

    const at = (name: string) => stat(join(root.rootfsPath, name));
    const [su, sudo, owned] = [await at('bin/su'), await at('bin/sudo'), await at('owned')];
    expect((su.mode & 0o7777).toString(8)).toBe('4755');
    expect(su.uid).toBe(rootUid(root));
    expect([sudo.ino, sudo.nlink]).toEqual([su.ino, 2]);
    expect([owned.uid, owned.gid]).toEqual([rootUid(root) + 1000, rootUid(root) + 1001]);
    if (!pool.xattrs) return;
    const { stdout } = await pool.host.run(['getcap', '-n', join(root.rootfsPath, 'bin', 'ping')]);
    expect(stdout).toContain('cap_net_raw=ep');
    expect(stdout.includes(`[rootid=${MAP.uidBase}]`)).toBe(root.owners !== null);
  });

  it('re-owns an instance whose map changed, with what it wrote', async () => {
    await using pool = await pooled();
    const before = await make(pool.driver, 'c1');
    await writeFile(join(before.rootfsPath, 'mine'), 'x');
    await pool.host.chown(join(before.rootfsPath, 'mine'), rootUid(before) + 5, rootUid(before) + 6);
    await pool.driver.unmountInstance('c1', signal());

    for (const map of [OTHER_MAP, null, MAP]) {
      const root = await pool.driver.mountInstance('c1', map, signal());

      const mine = await stat(join(root.rootfsPath, 'mine'));
      expect([mine.uid, mine.gid]).toEqual([(root.owners?.uidBase ?? 0) + 5, (root.owners?.gidBase ?? 0) + 6]);
      expect((await stat(join(root.rootfsPath, 'hello'))).uid).toBe(rootUid(root));
      expect(root.owners ?? map).toEqual(map);
      await pool.driver.unmountInstance('c1', signal());
    }
  });

  it('makes an empty root that belongs to the container', async () => {
    await using pool = await pooled();

    await pool.driver.createInstance({ name: 'c1', idMap: MAP }, signal());
    const root = await pool.driver.mountInstance('c1', MAP, signal());

    expect(await pool.host.list(root.rootfsPath)).toEqual([]);
    expect((await stat(root.rootfsPath)).uid).toBe(rootUid(root));
    await writeFile(join(root.rootfsPath, 'x'), 'x');
  });

  it('leaves mounts alone when the daemon starts again', async () => {
    await using pool = await pooled();
    const before = await make(pool.driver, 'c1');
    await writeFile(join(before.rootfsPath, 'kept'), 'x');

    const restarted = pool.restarted();
    await restarted.openPool(signal());

    expect(await readFile(join(before.rootfsPath, 'kept'), 'utf8')).toBe('x');
    expect(await restarted.mountInstance('c1', MAP, signal())).toEqual(before);
  });

  it('brings instances back after a reboot of the host', async () => {
    await using pool = await pooled();
    const before = await make(pool.driver, 'c1');
    await writeFile(join(before.rootfsPath, 'kept'), 'x');
    await pool.driver.deleteImage(FINGERPRINT, signal());
    await pool.reboot();

    const restarted = pool.restarted();
    await restarted.openPool(signal());
    const after = await restarted.mountInstance('c1', MAP, signal());

    expect(after).toEqual(before);
    expect(await readFile(join(after.rootfsPath, 'kept'), 'utf8')).toBe('x');
    expect(await readFile(join(after.rootfsPath, 'hello'), 'utf8')).toBe('of the image\n');
  });

  it('deletes an instance that some process still looks into', async () => {
    await using pool = await pooled();
    const { rootfsPath } = await make(pool.driver, 'c1');
    const stop = new AbortController();
    const watcher = pool.host.start(['sleep', '60'], { cwd: rootfsPath, signal: stop.signal });

    await pool.driver.deleteInstance('c1', signal());

    expect(await pool.driver.listInstances(signal())).toEqual([]);
    stop.abort();
    await watcher.done.catch(() => {});
    await pool.restarted().openPool(signal());
    await make(pool.driver, 'c1');
  });

  it('publishes no image whose daemon was killed while unpacking, and leaves no mount of it', async () => {
    await using pool = await pooled();
    const { promise: reached, resolve: reach } = Promise.withResolvers<void>();
    void pool.driver.createImage(
      OTHER_FINGERPRINT,
      async (directory, owners) => {
        await smallImage(pool.host)(directory, owners);
        reach();
        await Promise.withResolvers<void>().promise;
      },
      signal(),
    );
    await reached;

    const restarted = pool.restarted();
    await restarted.openPool(signal());
    await restarted.deleteImage(OTHER_FINGERPRINT, signal());
    await restarted.deleteImage(FINGERPRINT, signal());
    await restarted.deletePool(signal());

    expect(await pool.remains()).toEqual([]);
  });
}

async function temporaryFolder(host: Host): Promise<AsyncDisposable & { readonly path: string }> {
  const path = (await host.run(['mktemp', '-d', '/tmp/lighter-image-XXXXXX'])).stdout.trim();
  return { path, [Symbol.asyncDispose]: () => host.removeTree(path) };
}
