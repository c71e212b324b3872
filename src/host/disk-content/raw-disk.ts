// A raw image, or a block device: the file is the disk.
import { fstatSync, readSync } from 'node:fs';
import { type Disk, requireRange, unfit } from './disk.ts';

export class RawDisk implements Disk {
  readonly sizeBytes: number;
  readonly #fd: number;

  /** The descriptor stays the caller's. `sizeBytes` is to be said of a block device. */
  constructor(fd: number, sizeBytes = fstatSync(fd).size) {
    this.#fd = fd;
    this.sizeBytes = sizeBytes;
  }

  read(at: number, length: number): Buffer {
    requireRange(this, at, length);
    const buffer = Buffer.allocUnsafe(length);
    for (let done = 0; done < length; ) {
      const count = readSync(this.#fd, buffer, done, length - done, at + done);
      if (count === 0) throw unfit('the image is truncated');
      done += count;
    }
    return buffer;
  }
}
