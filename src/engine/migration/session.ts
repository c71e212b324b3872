// What the two ends of a migration say to each other (lxd-engine-contract section 2.9). What is sent is up to the caller: the root of
// an instance or a custom volume, with its snapshots.
import type { Host } from '#src/host/host.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { Channels } from './connections.ts';
import {
  CRIU,
  decodeControl,
  decodeHeader,
  encodeControl,
  encodeHeader,
  FS,
  INDEX_HEADER_VERSION,
  type MigrationHeader,
  type RsyncFeatures,
} from './messages.ts';
import {
  planStreams,
  receiveStreams,
  sendStreams,
  streamAnswer,
  streamOffer,
  type StreamPlan,
  type StreamReceiver,
  type StreamSender,
  takesStreams,
} from './streams.ts';
import { rsyncReceive, rsyncSend, type RsyncSettings } from './rsync.ts';

/** What is assumed of peers that do not negotiate. */
const OLD_FEATURES: RsyncFeatures = { xattrs: true, delete: true, compress: true };
const MAX_INDEX_BYTES = 64 << 20;

export interface Session {
  readonly host: Host;
  readonly channels: Channels;
  readonly signal: AbortSignal;
  /** Of the pool at this end. */
  readonly rsync: RsyncSettings;
  /** Told of bytes on their way. */
  readonly progress: (bytes: number) => void;
}

export interface Sender {
  readonly header: Pick<MigrationHeader, 'idmap' | 'snapshots'>;
  /** The index: configuration of the volume and of the named snapshots. */
  index(snapshots: readonly string[]): object | Promise<object>;
  /** Absent: it goes file by file, as it does when the other end wants that. */
  readonly streams?: StreamSender | undefined;
  /** Runs `use` with what is to be sent; undefined: as it is now. */
  withFiles(snapshot: string | undefined, use: (paths: readonly string[]) => Promise<void>): Promise<void>;
}

export async function send(session: Session, sender: Sender): Promise<void> {
  const { control } = session.channels;
  try {
    const names = sender.header.snapshots.map(({ name }) => name);
    const offer = {
      ...sender.header,
      ...(sender.streams ? streamOffer(sender.streams) : { fs: FS.rsync }),
      snapshotNames: names,
      rsyncFeatures: featuresOf(session.rsync),
      indexHeaderVersion: INDEX_HEADER_VERSION,
    };
    await control.send(encodeHeader(offer));
    const answer = readAnswer(await control.receiveMessage(session.signal), sender);
    await untilVerdict(session, true, (inner) => sendAll(inner, sender, answer, names));
  } catch (error) {
    await control.send(encodeControl({ success: false, message: messageOf(error) })).catch(() => undefined);
    throw error;
  }
}

/** A peer that cannot go on answers with its verdict instead of a header. */
function readAnswer(bytes: Buffer, { streams }: Sender): MigrationHeader {
  try {
    const header = decodeHeader(bytes);
    takesStreams(header, streams);
    return header;
  } catch (error) {
    const { success, message } = decodeControl(bytes);
    if (success || message === undefined) throw error;
    throw new AppError('internal', message, { cause: error });
  }
}

async function sendAll(session: Session, sender: Sender, answer: MigrationHeader, all: readonly string[]) {
  const { host, signal, progress, rsync } = session;
  const channel = session.channels.fs;
  const names = answer.refresh === true ? all.filter((name) => answer.snapshotNames.includes(name)) : all;
  const job = { host, channel, signal, progress, ...rsync, features: common(answer.rsyncFeatures, rsync) };
  if ((answer.indexHeaderVersion ?? 0) > 0) {
    await channel.send(Buffer.from(JSON.stringify(await sender.index(names))));
    await channel.endStream();
    checkIndexAnswer(await channel.receiveAll(MAX_INDEX_BYTES, signal));
  }
  const { streams } = sender;
  if (streams && takesStreams(answer, streams)) return sendStreams(job, streams, { answer, names });
  for (const snapshot of [...names, undefined]) {
    await sender.withFiles(snapshot, (paths) => rsyncSend(job, paths));
  }
}

function checkIndexAnswer(bytes: Buffer): void {
  const { StatusCode = 0, Error: reason = '' } = JSON.parse(bytes.toString()) as {
    StatusCode?: number;
    Error?: string;
  };
  if (StatusCode !== 200) throw new AppError('internal', `Failed negotiating migration options: ${reason}`);
}

function featuresOf({ compression }: RsyncSettings): RsyncFeatures {
  return { xattrs: true, delete: true, bidirectional: true, ...(compression && { compress: true }) };
}

function common(theirs: RsyncFeatures | undefined, settings: RsyncSettings): RsyncFeatures {
  const offered = theirs?.bidirectional === true ? theirs : OLD_FEATURES;
  const names = Object.keys(featuresOf(settings)) as (keyof RsyncFeatures)[];
  return Object.fromEntries(names.filter((name) => offered[name] === true).map((name) => [name, true]));
}

export interface Receiver {
  readonly refresh: boolean;
  /** The index that the source sends, if it sends one: JSON that nobody vouches for. */
  index?(document: Buffer): void;
  /** The names of the snapshots that are wanted, after it has made room for them. */
  choose(header: MigrationHeader): Promise<readonly string[]>;
  /** Absent: files come one by one, as they do when the source sends nothing else. */
  readonly streams?: StreamReceiver | undefined;
  /** Runs `use` with the directory to receive into; undefined: the volume as it is now. */
  receive(snapshot: string | undefined, use: (directory: string) => Promise<void>): Promise<void>;
}

/** The caller says with finish() how it ended, when all is safe. */
export async function receive(session: Session, receiver: Receiver): Promise<void> {
  const { control } = session.channels;
  const header = decodeHeader(await control.receiveMessage(session.signal));
  const snapshotNames = await receiver.choose(header);
  const rsyncFeatures = common(header.rsyncFeatures, session.rsync);
  // A source that runs sends its files a second time, when the first pass has shortened the way.
  const plan = await planStreams(header, receiver, snapshotNames);
  const passes = header.criu === CRIU.none ? 2 : 1;
  const indexHeaderVersion = Math.min(header.indexHeaderVersion ?? 0, INDEX_HEADER_VERSION);
  await control.send(
    encodeHeader({
      ...(plan ? streamAnswer(header, plan) : { fs: FS.rsync }),
      ...(passes === 2 && { criu: CRIU.none }),
      idmap: [],
      snapshotNames,
      snapshots: header.snapshots.filter(({ name }) => snapshotNames.includes(name)),
      predump: false,
      rsyncFeatures,
      refresh: receiver.refresh,
      indexHeaderVersion,
    }),
  );
  await untilVerdict(session, false, async (inner) => {
    if (indexHeaderVersion > 0) await exchangeIndex(inner, receiver);
    if (plan) return receiveAll(inner, plan, { header, names: snapshotNames });
    for (const snapshot of [...snapshotNames, undefined]) {
      const { host, signal, progress } = inner;
      await receiver.receive(snapshot, async (directory) => {
        const job = { host, channel: inner.channels.fs, features: rsyncFeatures, signal, progress };
        await rsyncReceive(job, directory);
        if (snapshot === undefined && passes === 2) await rsyncReceive(job, directory);
      });
    }
  });
}

function receiveAll(
  { channels: { fs: channel }, signal, progress }: Session,
  plan: StreamPlan,
  what: { readonly header: MigrationHeader; readonly names: readonly string[] },
): Promise<void> {
  return receiveStreams({ channel, signal, progress }, plan, what);
}

async function exchangeIndex({ channels: { fs }, signal }: Session, receiver: Receiver): Promise<void> {
  const document = await fs.receiveAll(MAX_INDEX_BYTES, signal);
  receiver.index?.(document);
  await fs.send(Buffer.from(JSON.stringify({ StatusCode: 200, Error: '', Refresh: receiver.refresh })));
  await fs.endStream();
}

/** Tells the source how it ended. */
export async function finish({ control }: Pick<Channels, 'control'>, error?: unknown): Promise<void> {
  const verdict = error === undefined ? { success: true } : { success: false, message: messageOf(error) };
  await control.send(encodeControl(verdict));
}

/** Runs `work`; a word of the peer that it failed ends it at once. `awaited`: its word that it succeeded is the end. */
async function untilVerdict(
  session: Session,
  awaited: boolean,
  work: (session: Session) => Promise<void>,
): Promise<void> {
  const stop = new AbortController();
  const signal = AbortSignal.any([session.signal, stop.signal]);
  const verdict = session.channels.control
    .receiveMessage(AbortSignal.any([session.signal, stop.signal]))
    .then((bytes) => {
      const { success, message = 'The other end of the migration failed' } = decodeControl(bytes);
      if (!success) throw new AppError('internal', message);
    });
  verdict.catch((error: unknown) => stop.abort(error));
  try {
    await work({ ...session, signal });
    if (awaited) await verdict;
  } catch (error) {
    // What the peer said is the reason; what broke here only followed.
    throw stop.signal.aborted ? stop.signal.reason : error;
  } finally {
    if (!awaited) stop.abort(new AppError('unavailable', 'The transfer is over'));
  }
}
