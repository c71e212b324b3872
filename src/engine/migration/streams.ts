// Volumes as streams of zfs or btrfs over a channel: the messages are LXD's. Two engines of ours also tell each other which snapshots
// they have, so that a copy is brought up to date with what is new.
import { type IdMapRange, idMapKey, readIdMapKey } from '#src/host/id-map.ts';
import { AppError } from '#src/lib/errors.ts';
import type { StreamPoint } from '#drivers/storage/driver.ts';
import type { Channel } from './channel.ts';
import { FS, type MigrationHeader } from './messages.ts';

export type StreamFormat = 'zfs' | 'btrfs';

/** Undefined snapshot: the volume itself. */
export interface StreamOf {
  readonly snapshot: string | undefined;
  readonly base: string | undefined;
}

export interface StreamSender {
  readonly format: StreamFormat;
  readonly compresses: boolean;
  /** Of the snapshots that may go along. */
  readonly points: readonly StreamPoint[];
  send(
    part: StreamOf & { readonly compress: boolean },
    use: (stream: NodeJS.ReadableStream) => Promise<void>,
  ): Promise<void>;
}

export interface StreamReceiver {
  readonly format: StreamFormat;
  readonly compresses: boolean;
  /** Of the volume that is brought up to date. */
  points(): Promise<readonly StreamPoint[]>;
  /** Owners are undefined where the source does not tell them by snapshot. */
  receive(
    part: StreamOf & { readonly owners: IdMapRange | null | undefined },
    stream: NodeJS.ReadableStream,
  ): Promise<void>;
}

export interface StreamPlan {
  readonly streams: StreamReceiver;
  /** The snapshot that both have, and that the first stream builds on. */
  readonly base: string | undefined;
}

type Fields = Pick<MigrationHeader, 'fs' | 'zfsFeatures' | 'btrfsFeatures' | 'streamPoints' | 'streamBase'>;

function features(format: StreamFormat, compress: boolean): Omit<Fields, 'fs'> {
  if (format === 'btrfs') return { btrfsFeatures: { migrationHeader: true } };
  return { zfsFeatures: { migrationHeader: true, ...(compress && { compress }) } };
}

/** What the source says of its streams. */
export function streamOffer({ format, compresses, points }: StreamSender): Fields {
  return {
    fs: FS[format],
    ...features(format, compresses),
    streamPoints: points.map(({ snapshot, guid, owners }) => ({ snapshot, guid, owners: idMapKey(owners) })),
  };
}

/** What the target says when it takes them. */
export function streamAnswer(header: MigrationHeader, { streams, base }: StreamPlan): Fields {
  const compress = streams.compresses && header.zfsFeatures?.compress === true;
  return {
    fs: FS[streams.format],
    ...features(streams.format, compress),
    ...(base !== undefined && { streamBase: base }),
  };
}

/** Undefined: files are sent one by one. */
export async function planStreams(
  header: MigrationHeader,
  { streams, refresh }: { readonly streams?: StreamReceiver | undefined; readonly refresh: boolean },
  wanted: readonly string[],
): Promise<StreamPlan | undefined> {
  if (!streams || !isOf(header, streams.format)) return undefined;
  if (!refresh) return { streams, base: undefined };
  const base = commonBase(header, await streams.points(), wanted);
  return base === undefined ? undefined : { streams, base };
}

function isOf({ fs, zfsFeatures, btrfsFeatures }: MigrationHeader, format: StreamFormat): boolean {
  const own = format === 'zfs' ? zfsFeatures : btrfsFeatures;
  return fs === FS[format] && own?.migrationHeader === true;
}

/** The newest snapshot of the target, if the source has it and all that is wanted is newer. */
function commonBase(
  { snapshots, streamPoints = [] }: MigrationHeader,
  points: readonly StreamPoint[],
  wanted: readonly string[],
): string | undefined {
  const there = new Map(points.map(({ snapshot, guid }) => [snapshot, guid]));
  const offered = new Map(streamPoints.map(({ snapshot, guid }) => [snapshot, guid]));
  const kept = snapshots.length - wanted.length;
  const names = snapshots.map(({ name }) => name);
  if (kept < 1 || there.size !== kept || names.slice(kept).some((name) => !wanted.includes(name))) return undefined;
  const base = names[kept - 1];
  const guid = base === undefined ? undefined : there.get(base);
  return guid !== undefined && offered.get(base ?? '') === guid ? base : undefined;
}

/** Whether the answer takes the streams. AppError 'unsupported' when it is none to the offer. */
export function takesStreams(answer: MigrationHeader, streams: StreamSender | undefined): boolean {
  if (answer.fs === FS.rsync) return false;
  if (!streams || !isOf(answer, streams.format)) {
    throw new AppError('unsupported', 'Failed to negotiate migration type');
  }
  return true;
}

export interface StreamChannel {
  readonly channel: Channel;
  readonly signal: AbortSignal;
  readonly progress: (bytes: number) => void;
}

/** Each stream begins at the one before it. */
export async function sendStreams(
  { channel, progress }: StreamChannel,
  streams: StreamSender,
  { answer, names }: { readonly answer: MigrationHeader; readonly names: readonly string[] },
): Promise<void> {
  let base = answer.streamBase;
  const point = streams.points.find(({ snapshot }) => snapshot === base);
  if (base !== undefined && !point) throw new AppError('invalid', 'The target has a snapshot that was not offered');
  if (answer.refresh === true && base === undefined) {
    throw new AppError('unsupported', 'Failed to negotiate migration type');
  }
  await channel.send(Buffer.from(JSON.stringify(headerOf(streams, names))));
  await channel.endStream();
  const compress = answer.zfsFeatures?.compress === true;
  const count = counter(progress);
  for (const snapshot of [...names, undefined]) {
    await streams.send({ snapshot, base, compress }, (stream) => channel.sendStream(counted(stream, count)));
    base = snapshot ?? base;
  }
}

/** What LXD wants to know before the streams. */
function headerOf({ format, points }: StreamSender, names: readonly string[]): object {
  const guids = new Map(points.map(({ snapshot, guid }) => [snapshot, guid]));
  if (format === 'zfs') {
    return { snapshot_datasets: names.map((name) => ({ name, guid: guids.get(name) ?? '' })) };
  }
  const subvolume = (snapshot: string) => ({
    path: '/',
    snapshot,
    readonly: snapshot !== '',
    uuid: guids.get(snapshot) ?? '',
  });
  return { subvolumes: [...names, ''].map(subvolume) };
}

const MAX_HEADER_BYTES = 16 << 20;

export async function receiveStreams(
  { channel, signal, progress }: StreamChannel,
  { streams, base: first }: StreamPlan,
  { header, names }: { readonly header: MigrationHeader; readonly names: readonly string[] },
): Promise<void> {
  checkHeader(streams.format, names, await channel.receiveAll(MAX_HEADER_BYTES, signal));
  const count = counter(progress);
  let base = first;
  for (const snapshot of [...names, undefined]) {
    const owners = ownersOf(header, snapshot);
    await streams.receive({ snapshot, base, owners }, channel.stream(signal, count));
    base = snapshot ?? base;
  }
}

/** AppError 'unsupported' for subvolumes inside of others: they are not negotiated. */
function checkHeader(format: StreamFormat, names: readonly string[], bytes: Buffer): void {
  let header: unknown;
  try {
    header = JSON.parse(bytes.toString());
  } catch (cause) {
    throw new AppError('invalid', 'The header of the streams is not JSON', { cause });
  }
  if (format !== 'btrfs') return;
  const { subvolumes } = (header ?? {}) as { readonly subvolumes?: unknown };
  if (Array.isArray(subvolumes) && subvolumes.length === names.length + 1) return;
  throw new AppError('unsupported', 'Subvolumes inside of the volume cannot be received');
}

function ownersOf({ streamPoints = [] }: MigrationHeader, snapshot: string | undefined): IdMapRange | null | undefined {
  const key = streamPoints.find((point) => point.snapshot === snapshot)?.owners;
  return key === undefined ? undefined : readIdMapKey(key);
}

function counter(progress: (bytes: number) => void): (bytes: number) => void {
  let total = 0;
  return (bytes) => {
    total += bytes;
    progress(total);
  };
}

async function* counted(source: NodeJS.ReadableStream, count: (bytes: number) => void): AsyncGenerator<Buffer> {
  for await (const chunk of source) {
    count((chunk as Buffer).length);
    yield chunk as Buffer;
  }
}
