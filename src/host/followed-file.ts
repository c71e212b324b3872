// A log file as a stream of what is written to it from now on, over rotations (NAME becomes another file) and truncations.
import { type FSWatcher, watch } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { Readable } from 'node:stream';
import { asError } from '#src/lib/errors.ts';

const CHUNK_BYTES = 64 * 1024;

export class FollowedFile extends Readable {
  readonly #path: string;
  readonly #watcher: FSWatcher;
  #file: FileHandle;
  #at: number;
  /** Somebody waits for data, and there was none. */
  #isHungry = false;
  #isBusy = false;
  /** Something happened since the last look. */
  #isStale = false;
  #isEnding = false;

  private constructor(path: string, file: FileHandle, at: number) {
    super({ highWaterMark: CHUNK_BYTES });
    this.#path = path;
    this.#file = file;
    this.#at = at;
    // The directory: a watch of the file would stay with the old one.
    this.#watcher = watch(dirname(path), { persistent: false }, (_event, name) => {
      if (name === basename(path)) this.#notice();
    });
    this.#watcher.on('error', (error) => this.destroy(error));
  }

  /** The file must be there. */
  static async open(path: string): Promise<FollowedFile> {
    const file = await open(path);
    try {
      const { size } = await file.stat();
      return new FollowedFile(path, file, size);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Nobody writes any more: the stream ends after what is there. */
  finish(): void {
    this.#isEnding = true;
    this.#notice();
  }

  override _read(): void {
    this.#isHungry = true;
    void this.#serve();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#watcher.close();
    // Not under a read that is still on its way: that closes it then.
    if (!this.#isBusy) void this.#close();
    callback(error);
  }

  async #close(): Promise<void> {
    await this.#file.close().catch(() => undefined);
  }

  #notice(): void {
    this.#isStale = true;
    if (this.#isHungry) void this.#serve();
  }

  async #serve(): Promise<void> {
    if (this.#isBusy || this.destroyed) return;
    this.#isBusy = true;
    try {
      do {
        this.#isStale = false;
        if (await this.#serveOnce()) this.#isStale = true; // there may be more
      } while (this.#isHungry && this.#isStale && !this.destroyed);
    } catch (error) {
      this.destroy(asError(error));
    } finally {
      this.#isBusy = false;
      if (this.destroyed) await this.#close();
    }
  }

  /** False: nothing new. */
  async #serveOnce(): Promise<boolean> {
    const isLast = this.#isEnding;
    const data = await this.#next();
    if (this.destroyed || (!data && !isLast)) return false;
    this.#isHungry = false; // until push() asks for more
    this.push(data ?? null);
    return data !== undefined;
  }

  /** undefined: nothing new. */
  async #next(): Promise<Buffer | undefined> {
    for (;;) {
      const { size, ino } = await this.#file.stat();
      if (size < this.#at) this.#at = 0; // cleared
      const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
      const { bytesRead } = await this.#file.read(buffer, 0, CHUNK_BYTES, this.#at);
      this.#at += bytesRead;
      if (bytesRead > 0) return buffer.subarray(0, bytesRead);
      if (!(await this.#moveOn(ino))) return undefined;
    }
  }

  /** To the file that has the name now; false: it is this one, or none yet. */
  async #moveOn(ino: number): Promise<boolean> {
    const found = await stat(this.#path).catch(() => undefined);
    if (!found || found.ino === ino || this.destroyed) return false;
    const next = await open(this.#path);
    await this.#file.close();
    this.#file = next;
    this.#at = 0;
    return true;
  }
}
