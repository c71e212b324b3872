// Backups in the storage driver's own format: LXD's tarball with a stream of the file system for each snapshot and the volume itself. A tar
// tells the size of a member before its content, so that a stream is read twice, unless it is small; nothing is written in between.
import { PassThrough } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { HeldStream, StorageDriver, VolumeRef } from '#drivers/storage/driver.ts';
import { AppError, asError } from '#src/lib/errors.ts';
import { tarEnd, tarHeader, tarMembers, tarPadding } from '#src/lib/tar.ts';
import { yamlText } from './yaml-text.ts';

/** A stream that is no longer than that is kept instead of read again. */
const KEPT_BYTES = 4 * 2 ** 20;

/** Where LXD has the streams of a kind of volume. */
export interface StreamPlaces {
  readonly volume: string;
  readonly snapshots: string;
}

export const INSTANCE_PLACES: StreamPlaces = { volume: 'backup/container', snapshots: 'backup/snapshots' };
export const CUSTOM_PLACES: StreamPlaces = { volume: 'backup/volume', snapshots: 'backup/volume-snapshots' };
export const OPTIMIZED_HEADER = 'backup/optimized_header.yaml';

export interface OptimizedBackup {
  readonly storage: StorageDriver;
  readonly volume: VolumeRef;
  /** What they are called in the backup, and on the pool. */
  readonly snapshots: ReadonlyMap<string, string>;
  readonly places: StreamPlaces;
  /** index.yaml; told what is in the streams. */
  readonly index: (streams: readonly HeldStream[]) => Promise<string>;
}

/** AppError 'unsupported' for a pool that has no format of its own. */
export function requireStreams({ streams, info }: StorageDriver): NonNullable<StorageDriver['streams']> {
  if (streams) return streams;
  throw new AppError('unsupported', `Optimized backups are not supported by storage driver "${info.name}"`);
}

/** The whole archive. */
export async function* packStreams(
  { storage, volume, snapshots, places, index }: OptimizedBackup,
  { onBytes, signal }: { readonly onBytes: (bytes: number) => void; readonly signal: AbortSignal },
): AsyncGenerator<Buffer> {
  const streams = requireStreams(storage);
  const names = new Map([...snapshots].map(([name, place]) => [place, name]));
  const held = { volume, snapshots: [...snapshots.values()] };
  yield* generated((take, stopped) => {
    const use = (found: readonly HeldStream[]): Promise<void> => {
      const named = found.map((stream) => ({ ...stream, snapshot: names.get(stream.snapshot ?? '') }));
      return take(members(named, { places, index, hasHeader: streams.nests, onBytes }));
    };
    return streams.hold(held, use, AbortSignal.any([signal, stopped]));
  });
}

interface Members extends Pick<OptimizedBackup, 'places' | 'index'> {
  readonly hasHeader: boolean;
  readonly onBytes: (bytes: number) => void;
}

async function* members(
  streams: readonly HeldStream[],
  { places, index, hasHeader, onBytes }: Members,
): AsyncGenerator<Buffer> {
  const files = [{ name: 'backup/index.yaml', content: await index(streams) }];
  if (hasHeader) files.push({ name: OPTIMIZED_HEADER, content: await headerText(streams) });
  yield tarMembers(files);
  for (const stream of streams) yield* member(streamName(places, stream), stream, onBytes);
  yield tarEnd();
}

function headerText(streams: readonly HeldStream[]): Promise<string> {
  const subvolumes = streams.map(({ path, snapshot = '', readonly, guid }) => ({
    path,
    snapshot,
    readonly,
    uuid: guid,
  }));
  return yamlText({ subvolumes });
}

/** A path in a name: its slashes are dashes, its dashes double. */
export function streamName(
  { volume, snapshots }: StreamPlaces,
  { snapshot, path }: { readonly snapshot?: string | undefined; readonly path: string },
): string {
  const whole = snapshot === undefined ? volume : `${snapshots}/${snapshot}`;
  const nested = path === '/' ? '' : `_${path.slice(1).replaceAll('-', '--').replaceAll('/', '-')}`;
  return `${whole}${nested}.bin`;
}

async function* member(name: string, { read }: HeldStream, onBytes: (bytes: number) => void): AsyncGenerator<Buffer> {
  const { size, content } = await measured(read);
  yield tarHeader(name, size);
  let sent = 0;
  for await (const piece of content ?? generated((take) => read((stream) => take(stream as AsyncIterable<Buffer>)))) {
    sent += piece.length;
    onBytes(piece.length);
    if (sent > size) break;
    yield piece;
  }
  if (sent !== size) throw new AppError('internal', `The stream ${name} has changed while it was read`);
  yield tarPadding(size);
}

/** How long it is, and all of it if that is little. */
async function measured(
  read: HeldStream['read'],
): Promise<{ readonly size: number; readonly content: readonly Buffer[] | undefined }> {
  let size = 0;
  let kept: Buffer[] = [];
  await read(async (stream) => {
    for await (const piece of stream as AsyncIterable<Buffer>) {
      size += piece.length;
      if (size <= KEPT_BYTES) kept.push(piece);
      else kept = [];
    }
  });
  return { size, content: size <= KEPT_BYTES ? kept : undefined };
}

/** What `work` gives to `take`, one source after the other; whoever reads no further ends the work. */
export async function* generated(
  work: (take: (source: AsyncIterable<Buffer>) => Promise<void>, stopped: AbortSignal) => Promise<void>,
): AsyncGenerator<Buffer> {
  const through = new PassThrough();
  const stop = new AbortController();
  const working = work((source) => pipeline(source, through, { end: false }), stop.signal).then(
    () => void through.end(),
    (error: unknown) => void through.destroy(asError(error)),
  );
  try {
    yield* through as AsyncIterable<Buffer>;
  } finally {
    stop.abort(new AppError('unavailable', 'nobody reads the backup'));
    through.destroy();
    await working;
  }
}
