// Roots of the drivers under the real runtime: an unprivileged container is root in its own.
import { mkdir, mkdtemp, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { LinuxHost } from '#src/host/linux-host.ts';
import type { MountedRoot, Unpack } from '#drivers/storage/driver.ts';
import { FINGERPRINT, MAP, signal } from '#test/contract/storage-contract.ts';
import { describeWith, hasKernelZfs } from '#test/integration/support.ts';
import { lvmMachine, type Machine, plainMachine, zfsMachine } from './real-pools.ts';

const host = new LinuxHost();

/** A root with nothing but a static busybox. */
const busybox: Unpack = async (directory) => {
  for (const folder of ['bin', 'proc', 'sys', 'dev'])
    await mkdir(join(directory, 'rootfs', folder), { recursive: true });
  await host.run(['cp', '-L', '/usr/bin/busybox', join(directory, 'rootfs', 'bin')]);
};

function configuration({ rootfsPath, rootfsOptions }: MountedRoot, script: string): string {
  const options = rootfsOptions === undefined ? [] : [`lxc.rootfs.options = ${rootfsOptions}`];
  const ids = [`lxc.idmap = u 0 ${MAP.uidBase} ${MAP.size}`, `lxc.idmap = g 0 ${MAP.gidBase} ${MAP.size}`];
  return [
    `lxc.rootfs.path = dir:${rootfsPath}`,
    ...options,
    ...ids,
    `lxc.init.cmd = /bin/busybox sh ${script}`,
    '',
  ].join('\n');
}

async function isItsOwn(kind: string, newMachine: () => Promise<Machine>): Promise<void> {
  await using machine = await newMachine();
  await using pool = await machine.newPool();
  const work = await mkdtemp('/var/tmp/lighter-runtime-');
  await host.setMode(work, 0o711);
  await pool.driver.createPool(signal());
  await pool.driver.createImage(FINGERPRINT, busybox, signal());
  await pool.driver.createInstance({ name: 'c1', image: FINGERPRINT, idMap: MAP }, signal());
  const root = await pool.driver.mountInstance('c1', MAP, signal());
  await writeFile(
    join(root.rootfsPath, 'script'),
    '/bin/busybox id -u > /id; echo > /made; /bin/busybox chown 5:6 /made /bin\n',
  );
  await writeFile(join(work, 'config'), configuration(root, '/script'));

  await host.run(['lxc-start', '-F', '-n', `lighter-${kind}`, '-f', join(work, 'config'), '-P', work]);

  expect(await readFile(join(root.rootfsPath, 'id'), 'utf8')).toBe('0\n');
  for (const name of ['made', 'bin']) {
    const { uid, gid } = await stat(join(root.rootfsPath, name));
    expect([uid, gid]).toEqual([(root.owners?.uidBase ?? 0) + 5, (root.owners?.gidBase ?? 0) + 6]);
  }
  await host.removeTree(work);
}

const NAME = 'the root of an unprivileged container';
const commands = ['lxc-start', 'busybox'];

describeWith({ root: true, commands }, NAME, () => {
  it.each(['overlay', 'dir'] as const)('is its own (%s)', (kind) => isItsOwn(kind, () => plainMachine(kind)));

  // zfs-fuse refuses what such a root does
  it.runIf(hasKernelZfs)('is its own (zfs)', () => isItsOwn('zfs', () => zfsMachine()));
});

const lvm = ['lvcreate', 'thin_check', 'mkfs.ext4', 'losetup'];

describeWith({ root: true, deviceMapper: true, commands: [...commands, ...lvm] }, `${NAME} on lvm`, () => {
  it('is its own', () => isItsOwn('lvm', () => lvmMachine()));
});
