// Snapshots of guests as images: the engine's own snapshot, published from there, so that the guest need not stop.
import { randomUUID } from 'node:crypto';
import type { Readable } from 'node:stream';
import type { EngineClient } from '#src/client/client.ts';
import type { PendingOperation } from '#src/client/operations.ts';
import { kindOf, messageOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import type { GuestSnapshot } from '../driver.ts';
import { within } from './limit.ts';

const CLEANUP_LIMIT_MS = 120_000;
/** Tells the image of a snapshot from all others, also from one of the same content. */
export const SNAPSHOT_PROPERTY = 'nova.snapshot';

export interface SnapshotContext {
  readonly client: EngineClient;
  readonly log: Log;
  readonly timeoutMs: number;
  /** Names of the snapshots in use: they are no leftovers. */
  readonly live: Set<string>;
}

export class EngineSnapshot implements GuestSnapshot {
  // What nova-lxd declared: consumers know the two, and spawn() goes by the content.
  readonly diskFormat = 'raw';
  readonly containerFormat = 'bare';
  readonly #context: SnapshotContext;
  readonly #instance: string;
  readonly #name: string;
  #creation: PendingOperation | undefined;
  #publication: PendingOperation | undefined;

  private constructor(context: SnapshotContext, instance: string, name: string) {
    this.#context = context;
    this.#instance = instance;
    this.#name = name;
  }

  static async take(context: SnapshotContext, instance: string, signal: AbortSignal): Promise<EngineSnapshot> {
    const snapshot = new EngineSnapshot(context, instance, `nova-${randomUUID()}`);
    context.live.add(snapshot.#name);
    try {
      const body = { name: snapshot.#name, stateful: false };
      snapshot.#creation = await context.client.instances.createSnapshot(instance, body, { signal });
      await snapshot.#creation.wait(signal);
      return snapshot;
    } catch (error) {
      await snapshot[Symbol.asyncDispose](); // it may have come about all the same
      throw error;
    }
  }

  async open(signal: AbortSignal): Promise<Readable> {
    const { client, timeoutMs } = this.#context;
    return within(`image of a snapshot of ${this.#instance}`, timeoutMs, signal, async (limit) => {
      this.#publication = await client.images.publish(
        {
          source: { type: 'snapshot', name: `${this.#instance}/${this.#name}` },
          public: false,
          aliases: [],
          // Without properties the image would have those of the guest's own, and pass for it in the image cache.
          properties: { description: 'Snapshot of OpenStack', [SNAPSHOT_PROPERTY]: this.#name },
        },
        { signal: limit },
      );
      const { metadata } = await this.#publication.wait(limit);
      // not limited: how long the transfer takes is the receiver's affair
      return (await client.images.export(String(metadata?.['fingerprint']), signal)).body;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const signal = AbortSignal.timeout(CLEANUP_LIMIT_MS);
    await this.#attempt('image', () => this.#removeImage(signal));
    await this.#attempt('snapshot', async () => {
      await this.#creation?.wait(signal).catch(() => signal.throwIfAborted()); // what failed leaves nothing to remove
      const removal = await this.#context.client.instances.removeSnapshot(this.#instance, this.#name, { signal });
      await removal.wait(signal);
    });
    this.#context.live.delete(this.#name);
  }

  /** Found by its mark: a publication that nobody waited for to the end has not told a fingerprint. */
  async #removeImage(signal: AbortSignal): Promise<void> {
    const { client } = this.#context;
    const publication = this.#publication;
    if (!publication) return;
    await client.operations.cancel(publication.id, signal).catch(() => undefined); // it has ended
    await publication.wait(signal).catch(() => signal.throwIfAborted());
    const images = await client.images.list({ signal });
    for (const { fingerprint, properties } of images) {
      if (properties?.[SNAPSHOT_PROPERTY] !== this.#name) continue;
      await (await client.images.remove(fingerprint, { signal })).wait(signal);
    }
  }

  async #attempt(what: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (kindOf(error) === 'not_found') return;
      const { log } = this.#context;
      log.warn(`the ${what} of a snapshot stays in the engine`, {
        instance: this.#instance,
        snapshot: this.#name,
        error: messageOf(error),
      });
    }
  }
}
