// What the reader process does: the image on a descriptor in, a compressed tar stream of its root file system out.
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { constants, createZstdCompress } from 'node:zlib';
import { type Disk, unfit } from '#src/host/disk-content/disk.ts';
import { Qcow2Disk } from './qcow2-disk.ts';
import { RawDisk } from '#src/host/disk-content/raw-disk.ts';
import { type ArchiveReport, RootArchive } from './root-archive.ts';
import { findRoot } from '#src/host/disk-content/root-partition.ts';

export type DiskFormat = 'raw' | 'qcow2';

export interface ReaderTask {
  readonly format: DiskFormat;
  /** Largest virtual size in bytes. */
  readonly maxDiskBytes: number;
}

export interface ReaderReport extends ArchiveReport {
  readonly diskBytes: number;
  readonly label: string;
}

/** Fast: every byte is written once and read once. */
const COMPRESSION_LEVEL = 1;

/** AppError 'invalid' for an image that is damaged, too large, or has no root file system that we read. */
export async function readDiskImage(
  fd: number,
  task: ReaderTask,
  output: NodeJS.WritableStream,
): Promise<ReaderReport> {
  try {
    const disk = openDisk(fd, task);
    const root = findRoot(disk);
    const archive = new RootArchive(root, { maxBytes: disk.sizeBytes, maxEntries: root.inodes * 2 });
    const params = { [constants.ZSTD_c_compressionLevel]: COMPRESSION_LEVEL };
    await pipeline(Readable.from(archive.stream(), { objectMode: false }), createZstdCompress({ params }), output);
    return { ...archive.report, diskBytes: disk.sizeBytes, label: root.label };
  } catch (error) {
    // A number of the image led out of what was read: the runtime stops it there.
    if (error instanceof RangeError) throw unfit('the image is damaged', { cause: error });
    throw error;
  }
}

function openDisk(fd: number, { format, maxDiskBytes }: ReaderTask): Disk {
  const file = new RawDisk(fd);
  const disk = format === 'qcow2' ? new Qcow2Disk(file) : file;
  if (disk.sizeBytes > maxDiskBytes)
    throw unfit(
      `the disk of the image has ${disk.sizeBytes} bytes; at most ${maxDiskBytes} are taken (max_disk_image)`,
    );
  return disk;
}
