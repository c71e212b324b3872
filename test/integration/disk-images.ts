// Disk images as clouds have them: a root file system in a partition of a disk.
import { execFile } from 'node:child_process';
import { open } from 'node:fs/promises';
import { promisify } from 'node:util';
import { gpt, LINUX_DATA, mbr, ROOT_X86_64, SECTOR } from '#test/fakes/disk-tables.ts';

const run = promisify(execFile);
const MIB = 1024 ** 2;
/** Where the root begins; before it there is room for a table and for what boots a virtual machine. */
const ROOT_AT = 4 * MIB;
export const DISK_TOOLS = ['mke2fs', 'qemu-img'];

export interface DiskOptions {
  readonly table?: 'gpt' | 'mbr';
  /** Of mke2fs: ext2, ext3 or ext4, and whatever else it takes. */
  readonly fileSystem?: readonly string[];
  readonly sizeMib: number;
}

/** A raw disk with a copy of the directory as its root. */
export async function makeRawDisk(
  file: string,
  directory: string,
  { table = 'gpt', fileSystem = ['-t', 'ext4'], sizeMib }: DiskOptions,
): Promise<void> {
  const disk = await open(file, 'wx');
  try {
    await disk.truncate(ROOT_AT + sizeMib * MIB + MIB);
    await disk.write(tableOf(table, sizeMib), 0);
  } finally {
    await disk.close();
  }
  const where = ['-E', `offset=${ROOT_AT},nodiscard`];
  await run('mke2fs', ['-q', '-F', ...fileSystem, ...where, '-d', directory, file, `${sizeMib}M`]);
}

function tableOf(table: 'gpt' | 'mbr', sizeMib: number): Buffer {
  const [first, count] = [ROOT_AT / SECTOR, (sizeMib * MIB) / SECTOR];
  if (table === 'mbr') return mbr([{ type: 0x83, first, count }]);
  return gpt([
    { type: LINUX_DATA, first: 2048, last: 4095 },
    { type: ROOT_X86_64, first, last: first + count - 1 },
  ]);
}

/** Converts with QEMU's own tool. */
export async function makeQcow2(raw: string, qcow2: string, options: readonly string[] = []): Promise<void> {
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', ...options, raw, qcow2]);
}
