// The files of images: $LIGHTER_DIR/images/FINGERPRINT and FINGERPRINT.rootfs, uploads beside them until they are whole.
import { createHash, randomUUID } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { requireSpace } from '#src/host/space.ts';
import { AppError } from '#src/lib/errors.ts';

/** Files of one image: the metadata and the root file system, or both in one. */
export interface ImageFileSet {
  readonly metadata: string;
  /** Absent: a unified image. */
  readonly rootfs?: string;
}

/** An upload that was written and hashed, still under a temporary name. */
export interface StagedImage extends AsyncDisposable {
  readonly files: ImageFileSet;
  /** SHA-256 of all files, one after the other. */
  readonly fingerprint: string;
  readonly sizeBytes: number;
}

/** One part of an upload. */
export type UploadPart = { readonly name: 'metadata' | 'rootfs' } & (
  | { readonly content: AsyncIterable<Buffer> }
  /** Each yields the whole content; the next is tried when one fails. */
  | { readonly attempts: readonly (() => AsyncIterable<Buffer>)[] }
);

const PART_SUFFIX = '.part';
/** How often it is looked whether there is room for more. */
const LOOK_EVERY_BYTES = 64 << 20;

export class ImageFiles {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  paths(fingerprint: string): { readonly metadata: string; readonly rootfs: string } {
    const metadata = join(this.#directory, fingerprint);
    return { metadata, rootfs: `${metadata}.rootfs` };
  }

  /** What is there of an image. */
  async find(fingerprint: string): Promise<ImageFileSet> {
    const { metadata, rootfs } = this.paths(fingerprint);
    const isSplit = await stat(rootfs).then(
      () => true,
      () => false,
    );
    return isSplit ? { metadata, rootfs } : { metadata };
  }

  /** Makes the directory and removes what belongs to no image: uploads cut short, images deleted half-way. */
  async clean(known: ReadonlySet<string>): Promise<readonly string[]> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const removed: string[] = [];
    for (const name of await readdir(this.#directory)) {
      if (!name.endsWith(PART_SUFFIX) && known.has(name.split('.', 1)[0] ?? '')) continue;
      await rm(join(this.#directory, name), { recursive: true });
      removed.push(name);
    }
    return removed;
  }

  /** Writes the parts in their order, hashing on the way. Nothing stays when a part fails, or all are more than `maxBytes`. */
  async stage(parts: AsyncIterable<UploadPart>, maxBytes?: number): Promise<StagedImage> {
    const base = join(this.#directory, randomUUID());
    const files = { metadata: `${base}${PART_SUFFIX}`, rootfs: `${base}.rootfs${PART_SUFFIX}` };
    const remove = async () => {
      for (const file of Object.values(files)) await rm(file, { force: true });
    };
    const sum = new Sum(this.#directory, maxBytes);
    let isSplit = false;
    try {
      for await (const part of parts) {
        isSplit ||= part.name === 'rootfs';
        await writePart(part, files[part.name], sum);
      }
    } catch (error) {
      await remove();
      throw error;
    }
    return {
      files: isSplit ? files : { metadata: files.metadata },
      fingerprint: sum.digest(),
      sizeBytes: sum.bytes,
      [Symbol.asyncDispose]: remove,
    };
  }

  /** For a file that is needed while an image is made; what is left there is removed at the next start. */
  scratchPath(): string {
    return join(this.#directory, `${randomUUID()}${PART_SUFFIX}`);
  }

  /** Gives a staged image its name; an interrupted one is removed at the next start. */
  async publish({ files, fingerprint }: StagedImage): Promise<void> {
    const target = this.paths(fingerprint);
    if (files.rootfs !== undefined) await rename(files.rootfs, target.rootfs);
    await rename(files.metadata, target.metadata);
  }

  /** Absent is success. */
  async remove(fingerprint: string): Promise<void> {
    const { metadata, rootfs } = this.paths(fingerprint);
    for (const path of [metadata, rootfs, `${metadata}.metadata`]) await rm(path, { force: true, recursive: true });
  }
}

/** Hash and size of what went by; can go back to where it was. */
class Sum {
  bytes = 0;
  #hash = createHash('sha256');
  readonly #directory: string;
  readonly #maxBytes: number;
  #nextLook = 0;

  constructor(directory: string, maxBytes = Number.POSITIVE_INFINITY) {
    this.#directory = directory;
    this.#maxBytes = maxBytes;
  }

  async *count(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of chunks) {
      this.#hash.update(chunk);
      this.bytes += chunk.length;
      if (this.bytes > this.#maxBytes) {
        throw new AppError('internal', `reached ${this.bytes} bytes, exceeding quota of ${this.#maxBytes}`);
      }
      if (this.bytes >= this.#nextLook) {
        await requireSpace(this.#directory);
        this.#nextLook = this.bytes + LOOK_EVERY_BYTES;
      }
      yield chunk;
    }
  }

  mark(): () => void {
    const [bytes, hash] = [this.bytes, this.#hash.copy()];
    return () => {
      this.bytes = bytes;
      this.#hash = hash;
    };
  }

  digest(): string {
    return this.#hash.digest('hex');
  }
}

async function writePart(part: UploadPart, path: string, sum: Sum): Promise<void> {
  const attempts = 'attempts' in part ? part.attempts : [() => part.content];
  for (const [index, attempt] of attempts.entries()) {
    const back = sum.mark();
    try {
      const target = createWriteStream(path, { flags: 'wx', mode: 0o600 });
      await pipeline(attempt(), (chunks: AsyncIterable<Buffer>) => sum.count(chunks), target);
      return;
    } catch (error) {
      if (index === attempts.length - 1) throw error;
      await rm(path, { force: true });
      back();
    }
  }
}
