// Files put into a container that does not run, through the engine: it follows no link out of the root file system.
import { text } from 'node:stream/consumers';
import { posix } from 'node:path';
import type { EngineClient } from '#src/client/client.ts';
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import { type GuestFile, GuestFileError } from '../driver.ts';

const FOLDER_MODE = 0o755;
const FILE_MODE = 0o644;
const PRIVATE_FOLDER_MODE = 0o700;
const PRIVATE_FILE_MODE = 0o600;
const MAX_PATH_BYTES = 4095;
const MAX_KEYS_BYTES = 1024 * 1024;
const AUTHORIZED_KEYS = '/root/.ssh/authorized_keys';

export class GuestFiles {
  readonly #client: EngineClient;
  readonly #instance: string;

  constructor(client: EngineClient, instance: string) {
    this.#client = client;
    this.#instance = instance;
  }

  /** Owned by root; what is there keeps its owner and mode. Parents are made. GuestFileError when it cannot be there. */
  async write(file: GuestFile, signal: AbortSignal): Promise<void> {
    const path = insidePath(file.path);
    try {
      await this.#makeParents(path, FOLDER_MODE, signal);
      await this.#put(path, file.content, FILE_MODE, signal);
    } catch (error) {
      if (signal.aborted || kindOf(error) === 'unavailable') throw error;
      throw new GuestFileError(`the file ${path} cannot be put into the guest: ${messageOf(error)}`, { cause: error });
    }
  }

  /** Adds a key to those by which root may log in. */
  async addRootKey(key: string, signal: AbortSignal): Promise<void> {
    await this.#makeParents(AUTHORIZED_KEYS, PRIVATE_FOLDER_MODE, signal);
    const before = await this.#read(AUTHORIZED_KEYS, signal);
    const separator = before === '' || before.endsWith('\n') ? '' : '\n';
    const content = `${before}${separator}${key.trim()}\n`;
    await this.#put(AUTHORIZED_KEYS, Buffer.from(content), PRIVATE_FILE_MODE, signal);
  }

  async #read(path: string, signal: AbortSignal): Promise<string> {
    const found = await this.#client.files.find(this.#instance, path, signal);
    if (found === undefined) return '';
    if (found.kind !== 'file') {
      found.content.destroy();
      throw new AppError('invalid', `${path} of the guest is a ${found.kind}`);
    }
    let size = 0;
    found.content.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > MAX_KEYS_BYTES) found.content.destroy(new AppError('invalid', `${path} of the guest is too large`));
    });
    return await text(found.content);
  }

  async #put(path: string, content: Uint8Array, mode: number, signal: AbortSignal): Promise<void> {
    const isThere = await this.#exists(path, signal);
    const owner = { uid: 0, gid: 0, mode };
    const file = { kind: 'file', content: Buffer.from(content), ...(!isThere && owner) } as const;
    await this.#client.files.put(this.#instance, path, file, signal);
  }

  async #makeParents(path: string, mode: number, signal: AbortSignal): Promise<void> {
    const missing: string[] = [];
    for (let folder = posix.dirname(path); folder !== '/'; folder = posix.dirname(folder)) {
      if (await this.#exists(folder, signal)) break;
      missing.unshift(folder);
    }
    for (const folder of missing) {
      await this.#client.files.put(this.#instance, folder, { kind: 'directory', mode, uid: 0, gid: 0 }, signal);
    }
  }

  async #exists(path: string, signal: AbortSignal): Promise<boolean> {
    const found = await this.#client.files.find(this.#instance, path, signal);
    found?.content.destroy();
    return found !== undefined;
  }
}

/** Absolute, without steps upwards. */
function insidePath(path: string): string {
  const inside = posix.normalize(`/${path}`);
  const isFile = inside !== '/' && !inside.endsWith('/') && !inside.includes('\0');
  if (isFile && Buffer.byteLength(inside) <= MAX_PATH_BYTES) return inside;
  throw new GuestFileError('the path of an injected file leads nowhere');
}
