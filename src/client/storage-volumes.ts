// Custom storage volumes of the engine.
import { kindOf } from '#src/lib/errors.ts';
import type { CallOptions, Operations, PendingOperation } from './operations.ts';
import type { Transport } from './transport.ts';
import type { StorageVolume, StringMap } from './wire.ts';

/** Which one, in the project of the client. */
export interface VolumeKey {
  readonly pool: string;
  readonly name: string;
}

/** What another engine offers. */
export interface VolumeSource {
  readonly type: 'migration';
  readonly mode: 'pull';
  readonly operation: string;
  readonly certificate: string;
  readonly secrets: StringMap;
  readonly volume_only: boolean;
}

export class StorageVolumes {
  readonly #transport: Transport;
  readonly #operations: Operations;

  constructor(transport: Transport, operations: Operations) {
    this.#transport = transport;
    this.#operations = operations;
  }

  async list(pool: string, signal?: AbortSignal): Promise<readonly StorageVolume[]> {
    const query = { recursion: 1 };
    const { envelope } = await this.#transport.request('GET', customPath(pool), { query, signal });
    return (envelope.metadata ?? []) as readonly StorageVolume[];
  }

  /** Undefined when there is none. */
  async find(key: VolumeKey, signal?: AbortSignal): Promise<StorageVolume | undefined> {
    try {
      const { envelope } = await this.#transport.request('GET', volumePath(key), { signal });
      return envelope.metadata as StorageVolume;
    } catch (error) {
      if (kindOf(error) === 'not_found') return undefined;
      throw error;
    }
  }

  /** An empty file system. AppError 'conflict' when the name is taken. */
  async create({ pool, name }: VolumeKey, config: StringMap, signal?: AbortSignal): Promise<void> {
    const body = { name, type: 'custom', content_type: 'filesystem', config };
    await this.#transport.request('POST', customPath(pool), { body, signal });
  }

  /** Fetches one from another engine. */
  async fetch(
    { pool, name }: VolumeKey,
    wanted: { readonly config: StringMap; readonly source: VolumeSource },
    options: CallOptions = {},
  ): Promise<PendingOperation> {
    const body = { name, type: 'custom', content_type: 'filesystem', ...wanted };
    return this.#operations.start('POST', customPath(pool), { ...options, body });
  }

  /** An operation that waits for another engine to fetch it. */
  async offer(key: VolumeKey, options: CallOptions = {}): Promise<PendingOperation> {
    const body = { name: key.name, migration: true, volume_only: true };
    return this.#operations.start('POST', volumePath(key), { ...options, body });
  }

  /** Merges by key. */
  async patch(key: VolumeKey, config: StringMap, signal?: AbortSignal): Promise<void> {
    await this.#transport.request('PATCH', volumePath(key), { body: { config }, signal });
  }

  /** AppError when somebody uses it. */
  async remove(key: VolumeKey, signal?: AbortSignal): Promise<void> {
    await this.#transport.request('DELETE', volumePath(key), { signal });
  }
}

function customPath(pool: string): string {
  return `/1.0/storage-pools/${encodeURIComponent(pool)}/volumes/custom`;
}

function volumePath({ pool, name }: VolumeKey): string {
  return `${customPath(pool)}/${encodeURIComponent(name)}`;
}
