// Reads the listings of tar -vv and unsquashfs -ll as they come, and counts: an archive says what is in it before it is written.
import { AppError } from '#src/lib/errors.ts';

export interface UnpackLimits {
  /** Sum of the sizes of all files, holes included. */
  readonly maxBytes: number;
  readonly maxEntries: number;
}

/** "-rw-r--r-- 0/0  1234 2026-11-23 13:33 name"; devices have "1,3" or "1,  3" for the size. */
const ENTRY = /^([-bcdhlpsDLV?])\S*\s+\S+\s+(\d+)(,)?/;
const SIZED = new Set(['-', '?']);
const MAX_LINE = 64 * 1024;

export class ListingCounter {
  readonly #limits: UnpackLimits;
  #rest = '';
  #entries = 0;
  #bytes = 0;

  constructor(limits: UnpackLimits) {
    this.#limits = limits;
  }

  get entries(): number {
    return this.#entries;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** AppError 'invalid' as soon as a limit is passed. */
  add(chunk: Buffer | string): void {
    const lines = (this.#rest + chunk.toString()).split('\n');
    this.#rest = (lines.pop() ?? '').slice(0, MAX_LINE);
    for (const line of lines) this.#count(line);
  }

  #count(line: string): void {
    if (line === '') return;
    // What does not look like an entry (part of a strange name) counts all the same: it can only make us stop earlier.
    this.#entries += 1;
    const [, kind = '', size = '0', isDevice] = ENTRY.exec(line) ?? [];
    if (SIZED.has(kind) && isDevice === undefined) this.#bytes += Number(size);
    if (this.#entries > this.#limits.maxEntries) {
      throw new AppError('invalid', `the archive has more than ${this.#limits.maxEntries} entries`);
    }
    if (this.#bytes > this.#limits.maxBytes) {
      throw new AppError('invalid', `the archive unpacks to more than ${this.#limits.maxBytes} bytes`);
    }
  }
}
