// Limits and usage of subvolumes: every subvolume has a qgroup of its number while quotas are on.
import { KernelError } from '../kernel.ts';
import type { SubvolumeUsage } from './btrfs.ts';
import { createQgroup, enableQuotas, KEY, limitQgroup, removeQgroup, searchItems, TREE } from './calls.ts';

const LIMIT_REFERENCED = 1n;

/** Quotas cost time whenever something is deleted: they are switched on by the first limit, not before. */
export async function setLimit(fd: number, id: bigint, bytes: number | undefined): Promise<void> {
  if (bytes === undefined && (await limitOf(fd, id)) === undefined) return;
  if ((await quotaItem(fd, KEY.qgroupInfo, id)) === undefined) {
    await enableQuotas(fd); // when they are on it does nothing
    // Enabling made one for each subvolume; newer kernels let nobody else make them (EINVAL).
    await createQgroup(fd, id).catch((error: unknown) => tolerate(error, 'EEXIST', 'EINVAL'));
  }
  await limitQgroup(fd, id, bytes === undefined ? undefined : BigInt(bytes));
}

export async function limitOf(fd: number, id: bigint): Promise<number | undefined> {
  const data = await quotaItem(fd, KEY.qgroupLimit, id); // flags, max_rfer, …
  if (!data || (data.readBigUInt64LE(0) & LIMIT_REFERENCED) === 0n) return undefined;
  return Number(data.readBigUInt64LE(8));
}

export async function usageOf(fd: number, id: bigint): Promise<SubvolumeUsage | undefined> {
  const data = await quotaItem(fd, KEY.qgroupInfo, id); // generation, rfer, rfer_cmpr, excl, excl_cmpr
  if (!data) return undefined;
  return { referencedBytes: Number(data.readBigUInt64LE(8)), exclusiveBytes: Number(data.readBigUInt64LE(24)) };
}

/**
 * Before a subvolume goes: kernels before 6.11 leave its qgroup for ever. Newer ones remove it themselves, and say that it is busy
 * until then.
 */
export async function removeLimit(fd: number, id: bigint): Promise<void> {
  if ((await quotaItem(fd, KEY.qgroupInfo, id)) === undefined) return;
  await removeQgroup(fd, id).catch((error: unknown) => tolerate(error, 'EBUSY', 'ENOENT', 'ENOTCONN', 'EINVAL'));
}

/** undefined: none, or quotas are off. */
async function quotaItem(fd: number, type: number, id: bigint): Promise<Buffer | undefined> {
  try {
    return (await searchItems(fd, { tree: TREE.quotas, objectId: 0n, type, offset: id }))[0]?.data;
  } catch (error) {
    tolerate(error, 'ENOENT');
    return undefined;
  }
}

function tolerate(error: unknown, ...names: readonly string[]): void {
  if (!(error instanceof KernelError) || !names.includes(error.errno)) throw error;
}
