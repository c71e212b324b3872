// The ioctls of btrfs: numbers and structs (linux/btrfs.h, linux/btrfs_tree.h) in, errno out. Subvolumes go by their ids.
import { ioctl, openDirectoryByHandle } from '../kernel.ts';

const IOC = {
  inodeLookup: 0xd0009412,
  treeSearchV2: 0xc0709411,
  snapshotCreateV2: 0x50009417,
  subvolumeCreateV2: 0x50009418,
  getFlags: 0x80089419,
  setFlags: 0x4008941a,
  snapshotDestroyV2: 0x5000943f,
  quotaControl: 0xc0109428,
  qgroupCreate: 0x4010942a,
  qgroupLimit: 0x8030942b,
  resize: 0x50009403,
  setReceived: 0xc0c89425,
  subvolumeInfo: 0x81f8943c,
} as const;

/** struct btrfs_ioctl_vol_args_v2: fd, transid, flags, four words unused, name (or subvolid). */
const VOLUME = { size: 4096, fd: 0, flags: 16, name: 56, nameLength: 4039 } as const;
const READONLY = 2n;
const BY_ID = 0x10n;
/** Every subvolume's root directory. */
export const ROOT_INODE = 256n;
const HANDLE_TYPE = 0x4d; // FILEID_BTRFS_WITHOUT_PARENT
const HANDLE_BYTES = 20;
const QUOTA_ENABLE = 1n;
/** Lifts a limit: zero would be one. */
const NO_LIMIT = 0xffff_ffff_ffff_ffffn;
const LIMIT_REFERENCED = 1n;

export const TREE = { roots: 1n, quotas: 8n } as const;
export const KEY = { rootReference: 156, qgroupInfo: 242, qgroupLimit: 244 } as const;

function volumeArguments(name: Buffer): Buffer {
  if (name.length > VOLUME.nameLength) throw new RangeError('the name of a subvolume is too long');
  const buffer = Buffer.alloc(VOLUME.size);
  name.copy(buffer, VOLUME.name);
  return buffer;
}

export async function createSubvolume(parentFd: number, name: Buffer): Promise<void> {
  await ioctl(parentFd, IOC.subvolumeCreateV2, volumeArguments(name), 'make subvolume');
}

/** One step of the kernel, with the data that programs have written until now; what is nested appears as empty directories. */
export async function createSnapshot(
  parentFd: number,
  { sourceFd, name, readonly }: { sourceFd: number; name: Buffer; readonly: boolean },
): Promise<void> {
  const buffer = volumeArguments(name);
  buffer.writeBigInt64LE(BigInt(sourceFd), VOLUME.fd);
  buffer.writeBigUInt64LE(readonly ? READONLY : 0n, VOLUME.flags);
  await ioctl(parentFd, IOC.snapshotCreateV2, buffer, 'make snapshot');
}

/** ENOTEMPTY while another is nested in it. Its space comes back in the background. */
export async function destroySubvolume(fsFd: number, id: bigint): Promise<void> {
  const buffer = Buffer.alloc(VOLUME.size);
  buffer.writeBigUInt64LE(BY_ID, VOLUME.flags);
  buffer.writeBigUInt64LE(id, VOLUME.name);
  await ioctl(fsFd, IOC.snapshotDestroyV2, buffer, 'remove subvolume');
}

export async function isReadonly(fd: number): Promise<boolean> {
  const flags = Buffer.alloc(8);
  await ioctl(fd, IOC.getFlags, flags);
  return (flags.readBigUInt64LE(0) & READONLY) !== 0n;
}

export async function setReadonly(fd: number, readonly: boolean): Promise<void> {
  const flags = Buffer.alloc(8);
  await ioctl(fd, IOC.getFlags, flags);
  const others = flags.readBigUInt64LE(0) & ~READONLY;
  flags.writeBigUInt64LE(others | (readonly ? READONLY : 0n), 0);
  await ioctl(fd, IOC.setFlags, flags, 'set subvolume flags');
}

/** Of the subvolume that the descriptor lies in. */
export async function subvolumeId(fd: number): Promise<bigint> {
  const buffer = Buffer.alloc(4096); // treeid (0: that of the descriptor), objectid, name
  buffer.writeBigUInt64LE(ROOT_INODE, 8);
  await ioctl(fd, IOC.inodeLookup, buffer);
  return buffer.readBigUInt64LE(0);
}

/** Path of a directory from the root of its subvolume: empty, or with a slash at its end. */
export async function directoryPath(fsFd: number, id: bigint, inode: bigint): Promise<Buffer> {
  const buffer = Buffer.alloc(4096);
  buffer.writeBigUInt64LE(id, 0);
  buffer.writeBigUInt64LE(inode, 8);
  await ioctl(fsFd, IOC.inodeLookup, buffer);
  return buffer.subarray(16, buffer.indexOf(0, 16));
}

/** A directory by subvolume and inode, wherever its path may lead meanwhile. */
export function openDirectory(fsFd: number, id: bigint, inode: bigint = ROOT_INODE): Promise<number> {
  const handle = Buffer.alloc(8 + HANDLE_BYTES); // handle_bytes, handle_type; objectid, root_objectid, generation (0: any)
  handle.writeUInt32LE(HANDLE_BYTES, 0);
  handle.writeInt32LE(HANDLE_TYPE, 4);
  handle.writeBigUInt64LE(inode, 8);
  handle.writeBigUInt64LE(id, 16);
  return openDirectoryByHandle(fsFd, handle);
}

export interface Item {
  readonly offset: bigint;
  readonly data: Buffer;
}

export interface ItemRange {
  readonly tree: bigint;
  readonly objectId: bigint;
  readonly type: number;
  readonly offset?: bigint;
}

const SEARCH = { keySize: 104, headerSize: 32, room: 64 * 1024 } as const;
const LAST = 0xffff_ffff_ffff_ffffn;

/** Items of one object and type, by offset. ENOENT without the tree. */
export async function searchItems(fd: number, range: ItemRange): Promise<readonly Item[]> {
  const found: Item[] = [];
  for (let from = range.offset ?? 0n; ; ) {
    const items = await searchOnce(fd, { ...range, from, to: range.offset ?? LAST });
    found.push(...items);
    const last = items.at(-1);
    if (!last || last.offset === (range.offset ?? LAST)) return found;
    from = last.offset + 1n;
  }
}

async function searchOnce(
  fd: number,
  { tree, objectId, type, from, to }: ItemRange & { readonly from: bigint; readonly to: bigint },
): Promise<readonly Item[]> {
  const buffer = Buffer.alloc(SEARCH.keySize + 8 + SEARCH.room);
  const words = [tree, objectId, objectId, from, to, 0n, LAST]; // tree, objectids, offsets, transids
  for (const [index, word] of words.entries()) buffer.writeBigUInt64LE(word, index * 8);
  for (const [index, word] of [type, type, 0xffff_ffff].entries()) buffer.writeUInt32LE(word, 56 + index * 4);
  buffer.writeBigUInt64LE(BigInt(SEARCH.room), SEARCH.keySize);
  await ioctl(fd, IOC.treeSearchV2, buffer);
  const items: Item[] = [];
  let at = SEARCH.keySize + 8;
  for (let left = buffer.readUInt32LE(64); left > 0; left--) {
    const length = buffer.readUInt32LE(at + 28); // transid, objectid, offset, type, len
    const data = buffer.subarray(at + SEARCH.headerSize, at + SEARCH.headerSize + length);
    items.push({ offset: buffer.readBigUInt64LE(at + 16), data });
    at += SEARCH.headerSize + length;
  }
  return items;
}

export async function enableQuotas(fd: number): Promise<void> {
  const buffer = Buffer.alloc(16);
  buffer.writeBigUInt64LE(QUOTA_ENABLE, 0);
  await ioctl(fd, IOC.quotaControl, buffer, 'switch quotas on');
}

/** `id` of a subvolume is that of its qgroup. */
export async function createQgroup(fd: number, id: bigint): Promise<void> {
  await changeQgroup(fd, id, 1n);
}

export async function removeQgroup(fd: number, id: bigint): Promise<void> {
  await changeQgroup(fd, id, 0n);
}

async function changeQgroup(fd: number, id: bigint, create: bigint): Promise<void> {
  const buffer = Buffer.alloc(16);
  buffer.writeBigUInt64LE(create, 0);
  buffer.writeBigUInt64LE(id, 8);
  await ioctl(fd, IOC.qgroupCreate, buffer, 'change qgroup');
}

/** Of what the subvolume refers to, shared or not; undefined lifts it. */
export async function limitQgroup(fd: number, id: bigint, bytes: bigint | undefined): Promise<void> {
  const buffer = Buffer.alloc(48); // qgroupid; flags, max_rfer, max_excl, rsv_rfer, rsv_excl
  buffer.writeBigUInt64LE(id, 0);
  buffer.writeBigUInt64LE(LIMIT_REFERENCED, 8);
  buffer.writeBigUInt64LE(bytes ?? NO_LIMIT, 16);
  await ioctl(fd, IOC.qgroupLimit, buffer, 'limit qgroup');
}

/** The file system grows into its device. */
export async function resizeToDevice(fd: number): Promise<void> {
  const buffer = Buffer.alloc(4096); // fd, name
  buffer.write('max', 8);
  await ioctl(fd, IOC.resize, buffer, 'resize');
}

/** struct btrfs_ioctl_get_subvol_info_args, as far as it is wanted here. */
const INFO = { size: 504, uuid: 296, receivedUuid: 328, uuidLength: 16 } as const;

export async function subvolumeUuids(fd: number): Promise<{ readonly uuid: Buffer; readonly receivedUuid: Buffer }> {
  const buffer = Buffer.alloc(INFO.size);
  await ioctl(fd, IOC.subvolumeInfo, buffer);
  const at = (offset: number): Buffer => buffer.subarray(offset, offset + INFO.uuidLength);
  return { uuid: at(INFO.uuid), receivedUuid: at(INFO.receivedUuid) };
}

/** EROFS for a readonly one. */
export async function setReceivedUuid(fd: number, uuid: Buffer): Promise<void> {
  const buffer = Buffer.alloc(200); // uuid; stransid, rtransid, stime, rtime, flags, reserved
  uuid.copy(buffer, 0, 0, INFO.uuidLength);
  await ioctl(fd, IOC.setReceived, buffer, 'mark received');
}
