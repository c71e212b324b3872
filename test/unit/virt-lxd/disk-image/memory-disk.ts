// Disks of tests: bytes in memory, and nothing in between.
import { type Disk, requireRange } from '#src/host/disk-content/disk.ts';

export class MemoryDisk implements Disk {
  readonly sizeBytes: number;
  readonly #pieces: readonly (readonly [number, Buffer])[];

  /** Pieces by their place. */
  constructor(sizeBytes: number, pieces: readonly (readonly [number, Buffer])[]) {
    this.sizeBytes = sizeBytes;
    this.#pieces = pieces;
  }

  read(at: number, length: number): Buffer {
    requireRange(this, at, length);
    const buffer = Buffer.alloc(length);
    for (const [start, piece] of this.#pieces) {
      const from = Math.max(at, start);
      const to = Math.min(at + length, start + piece.length);
      if (from < to) piece.copy(buffer, from - at, from - start, to - start);
    }
    return buffer;
  }
}
