// A raw image: the file is the disk.
import { fstatSync, readSync } from 'node:fs';
import { type Disk, requireRange, unfit } from './disk.ts';

export class RawDisk implements Disk {
  readonly sizeBytes: number;
  readonly #fd: number;

  /** The descriptor, of a regular file, stays the caller's. */
  constructor(fd: number) {
    this.#fd = fd;
    this.sizeBytes = fstatSync(fd).size;
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
