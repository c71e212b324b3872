// What OpenZFS keeps with files, and zfs-fuse does not: attributes, capabilities and access lists, on every way that a volume goes.
import { execFile } from 'node:child_process';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { StorageDriver, StreamPart, VolumeRef } from '#drivers/storage/driver.ts';
import { FINGERPRINT, MAP, signal, smallImage } from '#test/contract/storage-contract.ts';
import { describeWith, hasKernelZfs, onKernelsWith } from '#test/integration/support.ts';
import { type Machine, zfsMachine } from './real-pools.ts';
import type { RealPool } from './storage-files-contract.ts';

const run = promisify(execFile);
const MIB = 2 ** 20;
const A: VolumeRef = { kind: 'container', name: 'a' };
const B: VolumeRef = { kind: 'container', name: 'b' };
const NAMES = ['file', 'folder', 'folder/inner', 'link'];
const commands = ['zpool', 'zfs', 'setfattr', 'getfattr', 'setfacl', 'setcap'];

/** Kinds of attributes that differ in what the kernel makes of them. */
async function adorn(root: string): Promise<void> {
  await writeFile(join(root, 'file'), 'x');
  await mkdir(join(root, 'folder'));
  await symlink('file', join(root, 'link'));
  const at = (name: string): string => join(root, name);
  await run('setfattr', ['-n', 'user.small', '-v', 'one', at('file')]);
  await run('setfattr', ['-n', 'user.big', '-v', 'b'.repeat(30_000), at('file')]);
  await run('setfattr', ['-n', 'trusted.overlay.opaque', '-v', 'y', at('folder')]);
  await run('setfattr', ['-h', '-n', 'trusted.of-a-link', '-v', 'two', at('link')]);
  await run('setcap', ['cap_net_raw+ep', at('file')]);
  await run('setfacl', ['-m', 'u:1234:r,g:5678:rw', at('file')]);
  await run('setfacl', ['-d', '-m', 'u:4321:rwx', at('folder')]);
  await writeFile(at('folder/inner'), 'inherits');
}

async function adornments(root: string): Promise<string> {
  const { stdout } = await run('getfattr', ['-h', '-d', '-m', '-', '-e', 'hex', ...NAMES], {
    cwd: root,
    maxBuffer: MIB,
  });
  return stdout;
}

describeWith({ root: true, commands }, 'attributes of files on zfs', () => {
  const test = it.runIf(onKernelsWith(hasKernelZfs));
  let machine: Machine;

  beforeAll(async () => {
    machine = await zfsMachine();
  });
  afterAll(() => machine[Symbol.asyncDispose]());

  async function adorned(): Promise<RealPool & { readonly before: string }> {
    const pool = await machine.newPool();
    await pool.driver.createPool(signal());
    await pool.driver.createImage(FINGERPRINT, smallImage(pool.host), signal());
    await pool.driver.createVolume({ ...A, image: FINGERPRINT, idMap: MAP }, signal());
    const { rootfsPath } = await pool.driver.mountVolume(A, MAP, signal());
    await adorn(rootfsPath);
    return { ...pool, before: await adornments(rootfsPath), [Symbol.asyncDispose]: () => pool[Symbol.asyncDispose]() };
  }

  const of = async (driver: StorageDriver, volume: VolumeRef): Promise<string> =>
    adornments((await driver.mountVolume(volume, MAP, signal())).rootfsPath);

  test('are all there, also after a boot', async () => {
    await using pool = await adorned();
    for (const name of ['user.small', 'user.big', 'trusted.of-a-link', 'security.capability', 'posix_acl_default']) {
      expect(pool.before).toContain(name);
    }
    await pool.reboot();

    const restarted = pool.restarted();
    await restarted.openPool(signal());

    expect(await of(restarted, A)).toBe(pool.before);
  });

  test('go with copies, by clone and by stream, and come back with snapshots', async () => {
    await using pool = await adorned();
    const { driver } = pool;
    await driver.createSnapshot(A, 's', signal());

    await driver.copyVolume?.({ from: A, snapshots: [], to: { ...B, idMap: MAP } }, signal());
    const c: VolumeRef = { kind: 'container', name: 'c' };
    await driver.copyVolume?.({ from: A, snapshots: ['s'], to: { ...c, idMap: MAP } }, signal());
    expect(await of(driver, B)).toBe(pool.before);
    expect(await of(driver, c)).toBe(pool.before);

    const { rootfsPath } = await driver.mountVolume(A, MAP, signal());
    await run('setfattr', ['-x', 'user.small', join(rootfsPath, 'file')]);
    await run('setfacl', ['-b', join(rootfsPath, 'file')]);
    await driver.unmountVolume(A, signal());
    await driver.restoreSnapshot(A, 's', signal());
    expect(await of(driver, A)).toBe(pool.before);
  });

  test('stay as they are when the instance has another map of ids', async () => {
    await using pool = await adorned();
    await pool.driver.unmountVolume(A, signal());

    const other = { uidBase: 900_000, gidBase: 900_000, size: 65_536 };
    const root = await pool.driver.mountVolume(A, other, signal());

    // Mapped when it is mounted: the files themselves are as they were.
    expect([root.owners, root.rootfsOptions]).toEqual([null, 'idmap=container']);
    expect(await adornments(root.rootfsPath)).toBe(pool.before);
  });

  test.each([false, true])('go to another pool by streams (blocks as they are on the disk: %s)', async (compress) => {
    await using from = await adorned();
    await using to = await machine.newPool();
    await to.driver.createPool(signal());
    await to.driver.createVolume({ ...B, idMap: MAP }, signal());
    await from.driver.createSnapshot(A, 's', signal());
    const send = async (part: StreamPart): Promise<void> => {
      const { snapshot, base } = part;
      const receive = (stream: NodeJS.ReadableStream): Promise<void> =>
        to.driver.streams?.receive({ volume: B, snapshot, base, owners: null }, Readable.from(stream), signal()) ??
        Promise.reject(new Error('no streams'));
      await from.driver.streams?.send({ ...part, compress }, receive, signal());
    };

    expect(await from.driver.streams?.compresses()).toBe(true);
    await send({ volume: A, snapshot: 's' });
    await send({ volume: A, base: 's' });

    expect(await of(to.driver, B)).toBe(from.before);
  });
});
