// What OpenZFS keeps with files, and zfs-fuse does not: attributes, capabilities and access lists.
import { execFile } from 'node:child_process';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { StorageDriver, VolumeRef } from '#drivers/storage/driver.ts';
import { FINGERPRINT, MAP, signal, smallImage } from '#test/contract/storage-contract.ts';
import { describeWith, hasKernelZfs, onKernelsWith } from '#test/integration/support.ts';
import { type Machine, zfsMachine } from './real-pools.ts';
import type { RealPool } from './storage-files-contract.ts';

const run = promisify(execFile);
const MIB = 2 ** 20;
const A: VolumeRef = { kind: 'container', name: 'a' };
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
});
