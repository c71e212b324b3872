// A disk that is read at any place: what a virtual machine would see, of an image that nobody vouches for.
import { AppError } from '#src/lib/errors.ts';

/** Synchronous, since a process of its own reads it (README, "Disk images"). */
export interface Disk {
  /** What the guest would see, in bytes. */
  readonly sizeBytes: number;
  /** Exactly that many bytes. AppError 'invalid' beyond the end, and for what is damaged. */
  read(at: number, length: number): Buffer;
}

/** The image is at fault: no other host would do better. */
export function unfit(reason: string, options?: ErrorOptions): AppError {
  return new AppError('invalid', reason, options);
}

/** A number of the image as one that we can count with. */
export function countable(value: bigint, what: string): number {
  if (value < 0n || value > BigInt(Number.MAX_SAFE_INTEGER)) throw unfit(`the ${what} is impossible: ${value}`);
  return Number(value);
}

export function requireRange(disk: { readonly sizeBytes: number }, at: number, length: number): void {
  const isWithin = Number.isSafeInteger(at) && at >= 0 && length >= 0 && at + length <= disk.sizeBytes;
  if (!isWithin) throw unfit(`the image refers to ${length} bytes at ${at}, beyond its end at ${disk.sizeBytes}`);
}

/** A stretch of another disk, which it does not leave. */
export class DiskPart implements Disk {
  readonly sizeBytes: number;
  readonly #disk: Disk;
  readonly #start: number;

  constructor(disk: Disk, start: number, sizeBytes: number) {
    requireRange(disk, start, sizeBytes);
    this.#disk = disk;
    this.#start = start;
    this.sizeBytes = sizeBytes;
  }

  read(at: number, length: number): Buffer {
    requireRange(this, at, length);
    return this.#disk.read(this.#start + at, length);
  }
}

/** The newest `limit` of what was made, by number. */
export class Recent<T> {
  readonly #items = new Map<number, T>();
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get(key: number, make: () => T): T {
    const known = this.#items.get(key);
    if (known !== undefined) return known;
    const made = make();
    if (this.#items.size >= this.#limit) {
      const [oldest] = this.#items.keys();
      if (oldest !== undefined) this.#items.delete(oldest);
    }
    this.#items.set(key, made);
    return made;
  }
}
