// What comes as a stream of btrfs send becomes a volume or one of its snapshots, with what was nested in it.
import { randomUUID } from 'node:crypto';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { AppError } from '#src/lib/errors.ts';
import type { Host } from '#src/host/host.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { NestedStream, ReceivedPart, VolumeRef } from '../driver.ts';
import { markOwners } from '../common/owners-mark.ts';
import { writeRecord } from '../common/volume-record.ts';
import { checkedStream, type StreamBase } from './stream-commands.ts';
import { guidOf, type StreamParts } from './stream-parts.ts';
import { INSTANCE_MODE, SNAPSHOTS_MODE } from './volumes.ts';

const RECEIVE_LIMIT_MS = 24 * 3600_000;
const MAX_PATH_BYTES = 4096;

/** A readonly subvolume in which nobody has been. */
interface Received {
  readonly path: string;
  /** That it was sent with. */
  readonly uuid: string;
}

interface ReceivedNested extends Received {
  /** In what it was nested in. */
  readonly place: string;
  readonly readonly: boolean;
}

export class Arrivals {
  readonly #parts: StreamParts;
  readonly #host: Host;

  constructor(parts: StreamParts) {
    this.#parts = parts;
    this.#host = parts.context.host;
  }

  /** All that stays is a copy of what came, with the owner and mode that volumes have here. */
  async receive(part: ReceivedPart, stream: NodeJS.ReadableStream, signal: AbortSignal): Promise<void> {
    const { context, places } = this.#parts;
    const { volume, snapshot } = part;
    await using cleanup = new Reverter(context.log); // never committed
    if (snapshot !== undefined) {
      if (await this.#host.exists(places.snapshot(volume, snapshot)))
        throw new AppError('conflict', `snapshot ${snapshot} of ${volume.name} exists`);
      await this.#host.makeDirectory(places.snapshots(volume), { mode: SNAPSHOTS_MODE[volume.kind] });
    }
    const base = part.base === undefined ? undefined : places.snapshot(volume, part.base);
    const received = await this.#take({ volume, base, stream, cleanup }, signal);
    const nested: ReceivedNested[] = [];
    for await (const one of part.nested ?? []) {
      nested.push(await this.#takeNested(one, { volume, base, cleanup }, signal));
    }
    await this.#publish(part, { received, nested }, signal);
  }

  async #publish(
    { volume, snapshot, owners }: ReceivedPart,
    { received, nested }: { readonly received: Received; readonly nested: readonly ReceivedNested[] },
    signal: AbortSignal,
  ): Promise<void> {
    const { places, volumes } = this.#parts;
    const isSnapshot = snapshot !== undefined;
    const change = async (copy: string): Promise<void> => {
      await this.#adopt(copy, volume, owners);
      for (const one of nested) await this.#nest(copy, one, { isSnapshot });
      for (const { place, readonly } of nested) {
        if (readonly) await this.#host.btrfs.setReadonly(join(copy, place), true);
      }
    };
    if (!isSnapshot) return volumes.replaceBy(volume, received.path, { change, signal });
    const make = async (copy: string): Promise<void> => {
      await this.#host.btrfs.snapshot(received.path, copy);
      await change(copy);
      await this.#host.btrfs.markReceived(copy, received.uuid);
      await this.#host.btrfs.setReadonly(copy, true);
    };
    await places.publish(places.snapshot(volume, snapshot), make, signal);
  }

  /**
   * In a subvolume of its own, whose root is the root of all paths for btrfs receive: links in the stream lead nowhere else, and all
   * that it can build on is a copy of the base.
   */
  async #take(
    {
      volume,
      base: basePath,
      stream,
      cleanup,
    }: {
      readonly volume: VolumeRef;
      readonly base: string | undefined;
      readonly stream: NodeJS.ReadableStream;
      readonly cleanup: Reverter;
    },
    signal: AbortSignal,
  ): Promise<Received> {
    const { places } = this.#parts;
    const work = places.beside(places.volume(volume));
    cleanup.add(`subvolume to receive ${volume.name} in`, () => this.#host.btrfs.remove(work));
    await this.#host.btrfs.create(work);
    await this.#host.setMode(work, 0o700);
    const base = basePath === undefined ? undefined : await this.#copyBase(basePath, work);
    const checked = checkedStream(stream as AsyncIterable<unknown>, base);
    const argv = ['btrfs', 'receive', '-q', '-e', '-C', '-m', work, work] as const;
    await this.#host.run(argv, { signal, timeoutMs: RECEIVE_LIMIT_MS, input: Readable.from(checked.chunks) });
    return { path: await this.#only(work, base?.localUuid), uuid: checked.uuid() };
  }

  /** Builds on what was nested at the same place before, if anything was. */
  async #takeNested(
    { path, readonly, stream }: NestedStream,
    {
      volume,
      base,
      cleanup,
    }: { readonly volume: VolumeRef; readonly base: string | undefined; readonly cleanup: Reverter },
    signal: AbortSignal,
  ): Promise<ReceivedNested> {
    const place = checkPlace(volume, path);
    const before = base !== undefined && (await this.#isNested(base, place)) ? join(base, place) : undefined;
    return { ...(await this.#take({ volume, base: before, stream, cleanup }, signal)), place, readonly };
  }

  /** Under a UUID that no other subvolume has: of several copies of one snapshot btrfs receive would take any. */
  async #copyBase(path: string, work: string): Promise<StreamBase> {
    const guid = await guidOf(this.#host, path);
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
    if (kind === 'custom') return markOwners(this.#host, path, owners);
    const root = join(path, 'rootfs');
    if (!(await this.#host.exists(root)) || (await this.#host.status(root)).kind !== 'directory') {
      throw new AppError('invalid', 'What was received has no root file system');
    }
    await this.#host.chown(path, 0, 0);
    await this.#host.setMode(path, INSTANCE_MODE);
    await writeRecord(this.#host, path, { image: null, owners });
  }

  /** Where it was an empty directory is in the copy, or nothing. Of a snapshot it is known again, for what builds on it. */
  async #nest(
    copy: string,
    { path, uuid, place }: ReceivedNested,
    { isSnapshot }: { readonly isSnapshot: boolean },
  ): Promise<void> {
    if (!(await this.#isDirectory(copy, dirname(place)))) {
      throw new AppError('invalid', `What was received has no directory for the subvolume ${place}`);
    }
    const target = join(copy, place);
    if (await this.#isDirectory(copy, place)) {
      const isFilled = (await this.#host.btrfs.isSubvolume(target)) || (await this.#host.list(target)).length > 0;
      if (isFilled)
        throw new AppError('invalid', `What was received has something in the place of the subvolume ${place}`);
      await this.#host.removeTree(target);
    }
    await this.#host.btrfs.snapshot(path, target); // refuses what is there
    if (isSnapshot) await this.#host.btrfs.markReceived(target, uuid);
  }

  async #isNested(root: string, place: string): Promise<boolean> {
    return (await this.#isDirectory(root, place)) && this.#host.btrfs.isSubvolume(join(root, place));
  }

  /** Of nothing but directories: no link is followed. Nobody changes the tree meanwhile. */
  async #isDirectory(root: string, place: string): Promise<boolean> {
    let path = root;
    for (const name of place.split('/').filter(Boolean)) {
      path = join(path, name);
      if (!(await this.#host.exists(path)) || (await this.#host.status(path)).kind !== 'directory') return false;
    }
    return true;
  }
}

/** AppError 'invalid' for a path that leads out of the volume, or among what is kept beside the root of an instance. */
function checkPlace({ kind }: VolumeRef, path: string): string {
  const names = path.split('/').slice(1);
  const isPlain = names.every((name) => name !== '' && name !== '.' && name !== '..');
  const isBelow = kind === 'custom' || (names[0] === 'rootfs' && names.length > 1);
  const isShort = Buffer.byteLength(path) <= MAX_PATH_BYTES && !path.includes('\0');
  if (path.startsWith('/') && isPlain && isBelow && isShort) return path;
  throw new AppError('invalid', `Invalid path of a subvolume: ${JSON.stringify(path.slice(0, MAX_PATH_BYTES))}`);
}
