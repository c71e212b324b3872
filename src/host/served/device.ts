// A block device or a file of the host for programs without any rights: a node, or a view, that belongs to them.
import { constants } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { Host } from '../host.ts';
import { type IdMapRange, NOBODYS_IDS, toHost } from '../id-map.ts';
import { readKernelFile } from '../kernel-files.ts';

/** Of /sys, whatever the device's own are. */
const SECTOR = 512;

export interface ExposedDevice {
  readonly path: string;
  /** Whose it is. */
  readonly uid: number;
  readonly gid: number;
  readonly isFile: boolean;
}

export interface DeviceStatus {
  readonly sizeBytes: number;
  readonly node: { readonly major: number; readonly minor: number } | undefined;
  readonly uid: number;
  readonly gid: number;
}

/** Links are followed: device mapper's names are some. AppError 'not_found' or 'invalid' when it is neither a block device nor a file. */
export async function deviceStatus(source: string): Promise<DeviceStatus> {
  const found = await stat(source).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'ENOENT' && cause.code !== 'ENOTDIR') throw cause;
    throw new AppError('not_found', `There is no device or file "${source}"`, { cause });
  });
  const { rdev, uid, gid, size } = found;
  if (found.isFile()) return { sizeBytes: size, node: undefined, uid, gid };
  if (!found.isBlockDevice()) throw new AppError('invalid', `"${source}" is neither a block device nor a file`);
  const major = Math.floor(rdev / 256) % 4096;
  const minor = (rdev % 256) + Math.floor(rdev / 2 ** 20) * 256;
  const sectors = readKernelFile(`/sys/dev/block/${major}:${minor}/size`);
  if (sectors === undefined) throw new AppError('invalid', `The kernel has no block device "${source}"`);
  return { sizeBytes: Number(sectors) * SECTOR, node: { major, minor }, uid, gid };
}

/** AppError 'conflict' for a block device that is mounted, or that somebody has for themselves. */
export async function refuseUsed(source: string): Promise<void> {
  try {
    await using _mine = await open(source, constants.O_RDONLY | constants.O_EXCL);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EBUSY') throw cause;
    throw new AppError('conflict', `"${source}" is in use`, { cause });
  }
}

/** Makes `name` in `directory`, which root of `ids` may read and write. */
export async function exposeDevice(
  host: Host,
  source: string,
  { directory, name, ids = NOBODYS_IDS }: { directory: string; name: string; ids?: IdMapRange },
): Promise<ExposedDevice> {
  const { node, uid, gid } = await deviceStatus(source);
  const path = join(directory, name);
  if (node) {
    const owner = { uid: ids.uidBase, gid: ids.gidBase };
    await host.makeNode(path, { kind: 'block', ...node, mode: 0o600, ...owner });
    return { path, ...owner, isFile: false };
  }
  const owner = { uid: toHost(ids, 'uid', uid), gid: toHost(ids, 'gid', gid) };
  if (owner.uid === undefined || owner.gid === undefined)
    throw new AppError('invalid', `The owner of "${source}" has no id in the instance: it should be root's`);
  await host.writeFile(path, '');
  await host.mounts.bindMapped(source, path, ids);
  return { path, uid: owner.uid, gid: owner.gid, isFile: true };
}
