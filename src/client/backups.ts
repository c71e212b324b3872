// Backups of instances: streamed where the engine can, else made by it, fetched, and removed there; and brought back.
import type { Readable } from 'node:stream';
import type { CallOptions, Operations, PendingOperation } from './operations.ts';
import type { Transport } from './transport.ts';

export interface BackupOptions {
  readonly instanceOnly: boolean;
  readonly optimized: boolean;
  /** Empty: the engine's. */
  readonly compression: string;
}

/** An engine removes what a client that went away left there. */
const KEPT_MS = 24 * 3600_000;

export class Backups {
  readonly #transport: Transport;
  readonly #operations: Operations;

  constructor(transport: Transport, operations: Operations) {
    this.#transport = transport;
    this.#operations = operations;
  }

  /** The backup as it is made; nothing of it stays on the engine. Extension `direct_backup`. */
  async stream(instance: string, options: BackupOptions, signal: AbortSignal): Promise<Readable> {
    const headers = { Accept: 'application/octet-stream' };
    const body = wireOptions(options);
    return this.#transport.raw(backupsPath(instance), { method: 'POST', body, headers, signal, idleTimeoutMs: 0 });
  }

  /** Made first, then fetched by `use`, then removed. */
  async fetch(
    instance: string,
    options: BackupOptions,
    {
      use,
      ...call
    }: CallOptions & { readonly signal: AbortSignal; readonly use: (content: Readable) => Promise<void> },
  ): Promise<void> {
    const path = backupsPath(instance);
    const body = { ...wireOptions(options), expires_at: new Date(Date.now() + KEPT_MS).toISOString() };
    const ended = await (await this.#operations.start('POST', path, { ...call, body })).wait(call.signal);
    const [url = ''] = ended.resources?.['backups'] ?? [];
    const backup = `${path}/${url.slice(url.lastIndexOf('/') + 1)}`;
    try {
      await use(await this.#transport.raw(`${backup}/export`, { signal: call.signal }));
    } finally {
      await (await this.#operations.start('DELETE', backup, {})).wait(AbortSignal.timeout(60_000));
    }
  }

  /** Empty name and pool: those of the backup. */
  async import(
    content: Readable,
    { name, pool, ...call }: CallOptions & { readonly name: string; readonly pool: string },
  ): Promise<PendingOperation> {
    const own = { ...(name !== '' && { name }), ...(pool !== '' && { pool }) };
    const headers = Object.fromEntries(
      Object.entries(own).flatMap(([key, value]) => [
        [`X-LXD-${key}`, value],
        [`X-Incus-${key}`, value],
      ]),
    );
    return this.#operations.start('POST', '/1.0/instances', {
      ...call,
      body: content,
      headers: { ...headers, 'Content-Type': 'application/octet-stream' },
      idleTimeoutMs: 0,
    });
  }
}

function wireOptions({ instanceOnly, optimized, compression }: BackupOptions): object {
  return { instance_only: instanceOnly, optimized_storage: optimized, compression_algorithm: compression };
}

function backupsPath(instance: string): string {
  return `/1.0/instances/${encodeURIComponent(instance)}/backups`;
}
