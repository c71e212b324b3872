// Where the log goes: a descriptor or a file. A disk that is full costs lines of the log, and never the program.
import { closeSync, openSync, writeSync } from 'node:fs';
import { Writable } from 'node:stream';

const FILE_MODE = 0o640;
/** A pipe whose reader is slow. */
const TRIES = 100;
const PAUSE_MS = 2;
const pause = new Int32Array(new SharedArrayBuffer(4));

/** Writes at once, so that what a program says last is kept. A file is opened for each line: it may be rotated away. */
export class LogSink extends Writable {
  readonly #target: number | string;
  #lost = 0;

  /** A descriptor, or the path of a file. */
  constructor(target: number | string) {
    super();
    this.#target = target;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    try {
      if (this.#lost > 0) this.#put(Buffer.from(`${JSON.stringify(lostLines(this.#lost))}\n`));
      this.#lost = 0;
      this.#put(chunk);
    } catch {
      this.#lost += 1; // there is nowhere to say it; the next line that can be written tells
    }
    done();
  }

  #put(bytes: Buffer): void {
    if (typeof this.#target === 'number') return writeAll(this.#target, bytes);
    const fd = openSync(this.#target, 'a', FILE_MODE);
    try {
      writeAll(fd, bytes);
    } finally {
      closeSync(fd);
    }
  }
}

function lostLines(count: number): object {
  return {
    level: 'warn',
    message: 'lines of the log could not be written',
    count,
    timestamp: new Date().toISOString(),
  };
}

function writeAll(fd: number, bytes: Buffer): void {
  let tries = 0;
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(fd, bytes, at);
    } catch (error) {
      const isBusy = error instanceof Error && 'code' in error && error.code === 'EAGAIN';
      if (!isBusy || ++tries > TRIES) throw error;
      Atomics.wait(pause, 0, 0, PAUSE_MS);
    }
  }
}
