// Pools on the real machine: in a directory of their own, on a loop file system, or on zfs.
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { Lvm } from '#src/host/lvm.ts';
import { poll } from '#src/lib/wait.ts';
import type { Host } from '#src/host/host.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/log.ts';
import { storageDrivers } from '#drivers/storage/registry.ts';
import { MAP, signal } from '#test/contract/storage-contract.ts';
import { hasKernelZfs } from '#test/integration/support.ts';
import { timeFactor } from '#test/time-factor.ts';
import type { RealPool } from './storage-files-contract.ts';

interface Place {
  readonly kind: keyof typeof storageDrivers;
  /** A directory that the test may fill. */
  readonly folder: string;
  readonly config?: Readonly<Record<string, string>>;
  readonly host?: Host;
  /** The pool is made where it is, on a file system that is there. */
  readonly sourceIsPoolPath?: boolean;
}

/** A host whose kernel cannot map ids. */
export const unmappable = (): Host => new LinuxHost({ mapIds: false });

async function unmountAll(host: Host, path: string): Promise<void> {
  for (const mounted of await host.mounts.mountsUnder(path)) await host.mounts.unmount(mounted);
}

function realPool({ kind, folder, config = {}, host = new LinuxHost(), sourceIsPoolPath = false }: Place): RealPool {
  const pool = `t${randomUUID().slice(0, 8)}`;
  const poolPath = join(folder, pool);
  const disksPath = join(folder, `${pool}-disks`);
  const file = join(disksPath, `${pool}.img`);
  const source = sourceIsPoolPath ? { source: poolPath } : {};
  const names = { zfs: { 'zfs.pool_name': pool }, lvm: { 'lvm.vg_name': pool } } as const;
  const settings = { ...config, ...source, ...(kind === 'zfs' || kind === 'lvm' ? names[kind] : {}) };
  const context = { host, log: silentLog, pool, poolPath, disksPath, config: settings, defaultIdMap: MAP };
  const create = () => storageDrivers[kind].create(context);
  const isZfs = kind === 'zfs';
  const isLvm = kind === 'lvm';
  return {
    host,
    driver: create(),
    poolPath,
    restarted: create,
    xattrs: !isZfs || hasKernelZfs,
    async remains() {
      const mounts = await host.mounts.mountsUnder(poolPath);
      const files = [...(await host.list(poolPath)), ...(await host.list(disksPath))];
      const pools = isZfs ? (await host.run(['zpool', 'list', '-H', '-o', 'name'])).stdout.split('\n') : [];
      const group = isLvm ? await new Lvm(host).group(pool, signal()) : undefined;
      return [...mounts, ...files, ...pools.filter((name) => name === pool), ...(group?.devices ?? [])];
    },
    async reboot() {
      await unmountAll(host, poolPath);
      if (isZfs) await patiently(() => host.run(['zpool', 'export', pool]));
      if (isLvm) await stopGroup(host, pool, file);
    },
    async [Symbol.asyncDispose]() {
      await unmountAll(host, poolPath);
      if (isZfs) await destroyPool(host, pool);
      if (isLvm) await destroyGroup(host, pool, file);
      await unmountAll(host, poolPath);
      await host.btrfs.remove(poolPath);
      await host.removeTree(poolPath);
      await host.removeTree(disksPath);
    },
  };
}

/** Busy datasets take a moment; a pool that stays is a failure of the test. */
async function destroyPool(host: Host, pool: string): Promise<void> {
  await poll(
    async () => {
      await host.run(['zpool', 'destroy', '-f', pool], { okExitCodes: [0, 1, 2] });
      const { exitCode } = await host.run(['zpool', 'list', '-H', pool], { okExitCodes: [0, 1, 2] });
      return exitCode === 0 ? undefined : true;
    },
    200,
    AbortSignal.timeout(30_000 * timeFactor()),
  );
}

/** As after a boot: nothing active, its file attached nowhere. */
async function stopGroup(host: Host, name: string, file: string): Promise<void> {
  await new Lvm(host).deactivateGroup(name, signal());
  await detach(host, file);
}

async function destroyGroup(host: Host, name: string, file: string): Promise<void> {
  const lvm = new Lvm(host);
  if (await lvm.group(name, signal())) await patiently(() => lvm.removeGroup(name, signal()));
  await detach(host, file);
}

async function detach(host: Host, file: string): Promise<void> {
  const { stdout } = await host.run(['losetup', '--noheadings', '--output', 'NAME', '-j', file]);
  for (const device of stdout.split('\n').filter((line) => line.trim() !== '')) {
    await host.run(['losetup', '-d', device.trim()]);
  }
}

async function patiently(work: () => Promise<unknown>): Promise<void> {
  await poll(
    () =>
      work().then(
        () => true,
        () => undefined,
      ),
    200,
    signal(),
  );
}

export interface Machine extends AsyncDisposable {
  newPool(): Promise<RealPool>;
}

async function temporary(host: Host): Promise<string> {
  const path = (await host.run(['mktemp', '-d', '/var/tmp/lighter-pool-XXXXXX'])).stdout.trim();
  await host.run(['chmod', '711', path]);
  return path;
}

/** Pools below /var/tmp, on whatever file system that is. */
export async function plainMachine(kind: 'overlay' | 'dir', host: Host = new LinuxHost()): Promise<Machine> {
  const folder = await temporary(host);
  return {
    newPool: () => Promise.resolve(realPool({ kind, folder, host })),
    [Symbol.asyncDispose]: () => host.removeTree(folder),
  };
}

/** Pools on a file system in a loop file; at the end the loop device must be gone. */
export async function loopMachine(
  kind: 'overlay' | 'dir' | 'btrfs',
  mkfs: readonly [string, ...string[]],
): Promise<Machine> {
  const host = new LinuxHost();
  const work = await temporary(host);
  const folder = join(work, 'mounted');
  await host.run(['truncate', '-s', '1G', join(work, 'disk')]);
  await host.run([...mkfs, join(work, 'disk')]);
  await host.makeDirectory(folder);
  await host.run(['mount', '-o', 'loop', join(work, 'disk'), folder]);
  return {
    newPool: () => Promise.resolve(realPool({ kind, folder, host, sourceIsPoolPath: kind === 'btrfs' })),
    async [Symbol.asyncDispose]() {
      await host.run(['umount', folder]);
      await host.removeTree(work);
      const { stdout } = await host.run(['losetup', '-a']);
      if (stdout.includes(work)) throw new Error(`a loop device is left: ${stdout}`);
    },
  };
}

/** Pools on loop files of zfs. */
export async function zfsMachine(): Promise<Machine> {
  const host = new LinuxHost();
  const folder = await temporary(host);
  return {
    newPool: () => Promise.resolve(realPool({ kind: 'zfs', folder, host, config: { size: '512MiB' } })),
    [Symbol.asyncDispose]: () => host.removeTree(folder),
  };
}

/** Pools of the lvm driver on files of their own; at the end all their loop devices must be gone. */
export async function lvmMachine(host: Host = new LinuxHost()): Promise<Machine> {
  const folder = await temporary(host);
  const config = { size: '512MiB', 'volume.size': '64MiB' };
  return {
    newPool: () => Promise.resolve(realPool({ kind: 'lvm', folder, host, config })),
    [Symbol.asyncDispose]: () => removeWithoutLoops(host, folder),
  };
}

async function removeWithoutLoops(host: Host, folder: string): Promise<void> {
  await patiently(async () => {
    const { stdout } = await host.run(['losetup', '-a']);
    if (stdout.includes(folder)) throw new Error(`a loop device is left: ${stdout}`);
  });
  await host.removeTree(folder);
}

/** Pools of the btrfs driver on files of their own; at the end all their loop devices must be gone. */
export async function btrfsMachine(host: Host = new LinuxHost()): Promise<Machine> {
  const folder = await temporary(host);
  return {
    newPool: () => Promise.resolve(realPool({ kind: 'btrfs', folder, host, config: { size: '512MiB' } })),
    [Symbol.asyncDispose]: () => removeWithoutLoops(host, folder),
  };
}
