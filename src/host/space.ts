// Space that foreign content must leave free: a file system that is full to the last byte stops everything else that lives on it.
import { statfs } from 'node:fs/promises';
import { AppError, asError } from '#src/lib/errors.ts';

const RESERVED_BYTES = 2 ** 30;
const RESERVED_SHARE = 0.05;
const LOOK_EVERY_MS = 250;

/** AppError 'unavailable' when the file system has less left than it must keep: a twentieth of it, at most 1 GiB. */
export async function requireSpace(path: string): Promise<void> {
  const { bsize, blocks, bavail, files, ffree } = await statfs(path);
  const reserved = Math.min(RESERVED_BYTES, blocks * bsize * RESERVED_SHARE);
  const hasNodes = files === 0 || ffree > files * RESERVED_SHARE; // some file systems do not count them
  if (bavail * bsize >= reserved && hasNodes) return;
  throw new AppError('unavailable', 'No space left: the file system would be full');
}

/** Looks again and again while something is written; `stop` is aborted with the error when there is too little left. */
export class SpaceWatch implements Disposable {
  readonly #timer: NodeJS.Timeout;

  constructor(path: string, stop: AbortController) {
    const look = () => requireSpace(path).catch((error: unknown) => stop.abort(asError(error)));
    this.#timer = setInterval(() => void look(), LOOK_EVERY_MS);
    void look();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
