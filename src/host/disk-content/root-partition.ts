// Finds the root file system on a disk: where a type says so, or a name, or else the largest that has an init.
import { AppError, messageOf } from '#src/lib/errors.ts';
import { type Disk, DiskPart, unfit } from './disk.ts';
import { ExtFileSystem } from './ext/ext-file-system.ts';
import { findFile } from './ext/find-file.ts';
import { type FileSystem, fileSystemOf, UNREADABLE_ROOTS } from './file-systems.ts';
import { type Partition, readPartitions } from './partitions.ts';

/** Root partitions by architecture (The UAPI Group, Discoverable Partitions Specification). */
const ROOT_TYPES = new Set([
  '4f68bce3-e8cd-4db1-96e7-fbcaf984b709', // x86-64
  '44479540-f297-41b2-9af7-d131d5f0458a', // x86
  'b921b045-1df0-41c3-af44-4c6f280d3fae', // arm64
  '69dad710-2ce4-4e3c-b16c-21a1d49abed3', // arm
  'c31c45e6-3f39-412e-80fb-4809c4980599', // ppc64le
  '5eead9a9-fe09-4a1e-a1d7-520d00531306', // s390x
  '72ec70a6-cf74-40e6-bd49-4bda08e8f224', // riscv64
]);
const ROOT_NAMES = /^(cloudimg-rootfs|root(fs)?|.*_root)$/i;
const INITS = ['/sbin/init', '/usr/sbin/init', '/usr/lib/systemd/systemd', '/bin/init', '/init'];

interface Candidate {
  readonly fileSystem: ExtFileSystem;
  readonly partition: Partition;
}

/** AppError 'invalid', with what was found instead, when there is none that we read. */
export function findRoot(disk: Disk): ExtFileSystem {
  return bestRoot(disk).fileSystem;
}

/** Where it lies, in bytes. A file system that fills the whole disk is taken without a look at what is in it. */
export function placeOfRoot(disk: Disk): { readonly start: number; readonly sizeBytes: number } {
  if (fileSystemOf(disk) === 'ext') return { start: 0, sizeBytes: disk.sizeBytes };
  const { start, sizeBytes } = bestRoot(disk).partition;
  return { start, sizeBytes };
}

/**
 * Where the one file system of a disk lies that is no root: on all of it, or on the only partition that has one which we serve. 'blank': there is
 * nothing at all. AppError 'invalid', with what is there instead.
 */
export function placeOfData(disk: Disk): { readonly start: number; readonly sizeBytes: number } | 'blank' {
  if (fileSystemOf(disk) === 'ext') return { start: 0, sizeBytes: disk.sizeBytes };
  if (isBlank(disk)) return 'blank';
  const partitions = readPartitions(disk);
  if (!partitions) throw unfit(`the disk holds ${fileSystemOf(disk)}; ext2, ext3 and ext4 are taken`);
  const found = partitions.filter(
    ({ start, sizeBytes }) => fileSystemOf(new DiskPart(disk, start, sizeBytes)) === 'ext',
  );
  const [one, another] = found;
  if (one && !another) return one;
  throw unfit(`the disk has ${found.length} partitions with ext2, ext3 or ext4, and should have one`);
}

const EDGE_BYTES = 2 ** 20;

/** Whatever marks a disk as somebody's lies near its beginning or its end. */
function isBlank(disk: Disk): boolean {
  const bytes = Math.min(EDGE_BYTES, disk.sizeBytes);
  return [0, disk.sizeBytes - bytes].every((at) => disk.read(at, bytes).every((byte) => byte === 0));
}

function bestRoot(disk: Disk): Candidate {
  const partitions = readPartitions(disk) ?? [{ start: 0, sizeBytes: disk.sizeBytes, type: '', name: '' }];
  const looked = partitions
    .filter(({ type }) => type !== '05')
    .map((partition) => {
      const part = new DiskPart(disk, partition.start, partition.sizeBytes);
      return { partition, part, kind: fileSystemOf(part) };
    });
  const complaints: string[] = [];
  const candidates = looked.flatMap(({ partition, part, kind }): readonly Candidate[] => {
    if (kind !== 'ext') return [];
    try {
      const fileSystem = new ExtFileSystem(part);
      return isRoot(fileSystem) ? [{ fileSystem, partition }] : [];
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      complaints.push(messageOf(error)); // another partition may be the root; otherwise this is the reason
      return [];
    }
  });
  const [best] = candidates.toSorted((left, right) => rank(right) - rank(left) || bySize(left, right));
  if (best) return best;
  throw complaints[0] === undefined ? noRoot(looked.map(({ kind }) => kind)) : unfit(complaints[0]);
}

function isRoot(fileSystem: ExtFileSystem): boolean {
  return (
    findFile(fileSystem, '/etc')?.kind === 'directory' &&
    INITS.some((path) => findFile(fileSystem, path)?.kind === 'file')
  );
}

function rank({ partition, fileSystem }: Candidate): number {
  if (ROOT_TYPES.has(partition.type)) return 2;
  return ROOT_NAMES.test(fileSystem.label) || ROOT_NAMES.test(partition.name) ? 1 : 0;
}

function bySize(left: Candidate, right: Candidate): number {
  return right.fileSystem.sizeBytes - left.fileSystem.sizeBytes;
}

function noRoot(kinds: readonly FileSystem[]): Error {
  const unreadable = kinds.find((kind) => UNREADABLE_ROOTS.has(kind));
  if (unreadable !== undefined) {
    return unfit(`the root file system of the disk image is on ${unreadable}; ext2, ext3 and ext4 are taken`);
  }
  const found = kinds.length === 0 ? 'no partition' : `only ${kinds.join(', ')}`;
  return unfit(`the disk image has no root file system with an init on ext2, ext3 or ext4: there is ${found}`);
}
