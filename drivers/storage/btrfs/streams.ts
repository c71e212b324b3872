// Volumes as streams of btrfs send: each snapshot one stream, the volume as it is now one more.
import { join } from 'node:path';
import type { Host } from '#src/host/host.ts';
import { streamed } from '#src/host/streamed.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { HeldStream, ReceivedPart, StorageStreams, StreamPart, StreamPoint, VolumeRef } from '../driver.ts';
import { Arrivals } from './arrivals.ts';
import { type Held, hold } from './held.ts';
import { guidOf, ownersAt, SENT_NAME, type StreamParts } from './stream-parts.ts';

export class BtrfsStreams implements StorageStreams {
  readonly format = 'btrfs';
  readonly nests = true;
  readonly #host: Host;
  readonly #parts: StreamParts;

  constructor(parts: StreamParts) {
    this.#host = parts.context.host;
    this.#parts = parts;
  }

  compresses(): Promise<boolean> {
    return Promise.resolve(false);
  }

  /** Subvolumes inside of it would be missing. */
  async canSend(volume: VolumeRef): Promise<boolean> {
    const { places, volumes } = this.#parts;
    const snapshots = (await volumes.snapshots(volume)).map((snapshot) => places.snapshot(volume, snapshot));
    for (const path of [places.volume(volume), ...snapshots]) if (await this.#host.btrfs.hasNested(path)) return false;
    return true;
  }

  async points(volume: VolumeRef): Promise<readonly StreamPoint[]> {
    const { places, volumes } = this.#parts;
    const points: StreamPoint[] = [];
    for (const snapshot of await volumes.snapshots(volume)) {
      const path = places.snapshot(volume, snapshot);
      const owners = await ownersAt(this.#host, volume.kind, path);
      points.push({ snapshot, guid: await guidOf(this.#host, path), owners });
    }
    return points;
  }

  async send(
    { volume, snapshot, asVolume = snapshot === undefined, base }: StreamPart,
    use: (stream: NodeJS.ReadableStream) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const { context, places } = this.#parts;
    const since = base === undefined ? [] : ['-p', places.snapshot(volume, base)];
    const send = (path: string): Promise<void> => {
      return streamed(this.#host, { argv: ['btrfs', 'send', '-q', ...since, path], use, signal });
    };
    const source = snapshot === undefined ? places.volume(volume) : places.snapshot(volume, snapshot);
    if (!asVolume) return send(source);
    await using cleanup = new Reverter(context.log); // never committed: the snapshot is only for the stream
    const folder = places.beside(places.volume(volume));
    cleanup.add(`subvolume to be sent of ${volume.name}`, () => places.discard(folder));
    await this.#host.makeDirectory(folder, { mode: 0o700, fresh: true });
    await this.#host.btrfs.snapshot(source, join(folder, SENT_NAME), { readonly: true });
    await send(join(folder, SENT_NAME));
  }

  hold(held: Held, use: (streams: readonly HeldStream[]) => Promise<void>, signal: AbortSignal): Promise<void> {
    return hold(this.#parts, held, use, signal);
  }

  receive(part: ReceivedPart, stream: NodeJS.ReadableStream, signal: AbortSignal): Promise<void> {
    return new Arrivals(this.#parts).receive(part, stream, signal);
  }
}
