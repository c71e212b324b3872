// Volumes as streams of btrfs send: each snapshot one stream, the volume as it is now one more.
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { AppError } from '#src/lib/errors.ts';
import type { Host } from '#src/host/host.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import { streamed } from '#src/host/streamed.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { ReceivedPart, StorageContext, StorageStreams, StreamPart, StreamPoint, VolumeRef } from '../driver.ts';
import { readRecord, writeRecord } from '../common/volume-record.ts';
import type { Places } from './places.ts';
import { checkedStream } from './stream-commands.ts';
import { INSTANCE_MODE, SNAPSHOTS_MODE, type Volumes } from './volumes.ts';

const RECEIVE_LIMIT_MS = 24 * 3600_000;
/** What LXD expects the volume itself to be called in its stream. */
const SENT_NAME = '.migration-send';

export interface StreamParts {
  readonly context: StorageContext;
  readonly places: Places;
  readonly volumes: Volumes;
}

export class BtrfsStreams implements StorageStreams {
  readonly format = 'btrfs';
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
      const owners = volume.kind === 'custom' ? null : (await readRecord(this.#host, path)).owners;
      points.push({ snapshot, guid: await this.#guid(path), owners });
    }
    return points;
  }

  async #guid(path: string): Promise<string> {
    const { uuid, receivedUuid } = await this.#host.btrfs.identity(path);
    return receivedUuid ?? uuid;
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

  /**
   * In a subvolume of its own, whose root is the root of all paths for btrfs receive: links in the stream lead nowhere else, and all
   * that it can build on is a copy of the base. What has come is then made again with the owner and mode that volumes have here.
   */
  async receive(part: ReceivedPart, stream: NodeJS.ReadableStream, signal: AbortSignal): Promise<void> {
    const { context, places, volumes } = this.#parts;
    const { volume, snapshot } = part;
    const path = snapshot === undefined ? places.volume(volume) : places.snapshot(volume, snapshot);
    await using cleanup = new Reverter(context.log); // never committed: all that stays is a copy of what came
    if (snapshot !== undefined) {
      if (await this.#host.exists(path))
        throw new AppError('conflict', `snapshot ${snapshot} of ${volume.name} exists`);
      await this.#host.makeDirectory(places.snapshots(volume), { mode: SNAPSHOTS_MODE[volume.kind] });
    }
    const work = places.beside(places.volume(volume));
    cleanup.add(`subvolume to receive ${volume.name} in`, () => this.#host.btrfs.remove(work));
    await this.#host.btrfs.create(work);
    await this.#host.setMode(work, 0o700);
    const base = part.base === undefined ? undefined : await this.#copyBase(places.snapshot(volume, part.base), work);
    const checked = checkedStream(stream as AsyncIterable<unknown>, base);
    const argv = ['btrfs', 'receive', '-q', '-e', '-C', '-m', work, work] as const;
    await this.#host.run(argv, { signal, timeoutMs: RECEIVE_LIMIT_MS, input: Readable.from(checked.chunks) });
    const received = await this.#only(work, base?.localUuid);
    if (snapshot === undefined) {
      const change = (copy: string): Promise<void> => this.#adopt(copy, volume, part.owners);
      await volumes.replaceBy(volume, received, { change, signal });
      return;
    }
    const make = async (copy: string): Promise<void> => {
      await this.#host.btrfs.snapshot(received, copy);
      await this.#adopt(copy, volume, part.owners);
      await this.#host.btrfs.markReceived(copy, checked.uuid());
      await this.#host.btrfs.setReadonly(copy, true);
    };
    await places.publish(path, make, signal);
  }

  /** Under a UUID that no other subvolume has: of several copies of one snapshot btrfs receive would take any. */
  async #copyBase(path: string, work: string) {
    const guid = await this.#guid(path);
    const localUuid = randomUUID().replaceAll('-', '');
    const copy = join(work, localUuid);
    await this.#host.btrfs.snapshot(path, copy);
    await this.#host.btrfs.markReceived(copy, localUuid);
    await this.#host.btrfs.setReadonly(copy, true);
    return { guid, localUuid };
  }

  async #only(work: string, base: string | undefined): Promise<string> {
    const [name, ...more] = (await this.#host.list(work)).filter((entry) => entry !== base);
    const path = join(work, name ?? '');
    if (name === undefined || more.length > 0 || !(await this.#host.btrfs.isSubvolume(path))) {
      throw new AppError('invalid', 'The stream did not make one subvolume');
    }
    return path;
  }

  async #adopt(path: string, { kind }: VolumeRef, owners: IdMapRange | null): Promise<void> {
    if (kind === 'custom') return;
    const root = join(path, 'rootfs');
    if (!(await this.#host.exists(root)) || (await this.#host.status(root)).kind !== 'directory') {
      throw new AppError('invalid', 'What was received has no root file system');
    }
    await this.#host.chown(path, 0, 0);
    await this.#host.setMode(path, INSTANCE_MODE);
    await writeRecord(this.#host, path, { image: null, owners });
  }
}
