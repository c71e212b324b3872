// rsync over a channel: its two halves talk to each other as if a remote shell were between them.
import { once } from 'node:events';
import type { Writable } from 'node:stream';
import type { Host, RunningCommand } from '#src/host/host.ts';
import { AppError, asError, messageOf } from '#src/lib/errors.ts';
import type { Channel } from './channel.ts';
import type { RsyncFeatures } from './messages.ts';

const LIMIT_MS = 24 * 3600_000;
/**
 * What rsync takes for its remote shell: it carries bytes to and from two descriptors of ours, and ends with those that come in,
 * for which rsync waits. The text is fixed.
 */
const RELAY = "sh -c 'exec 5<&0; cat <&5 >&4 3<&- & exec cat <&3 4>&- 5<&-'";
const COMMON = ['--devices', '--numeric-ids', '--partial', '--sparse'];

/**
 * For the end that receives, which compares. Of two files of one size whose times differ by less than a second rsync would keep the
 * old one; to compare their content instead means to read all of both trees.
 */
export const EXACT_TIMES = '--modify-window=-1';

/** What a pool notes on its files means nothing on another. */
export const OWN_XATTRS = '--filter=-x trusted.lighter.*';

/** What the pool that files leave says about it. */
export interface RsyncSettings {
  /** As rsync reads it; undefined: no limit. */
  readonly bwlimit?: string;
  readonly compression: boolean;
}

/** Options for the end that sends. */
export function limitArgs({ bwlimit }: Pick<RsyncSettings, 'bwlimit'>): readonly string[] {
  return bwlimit === undefined ? [] : [`--bwlimit=${bwlimit}`];
}

/** Both ends must be given the same. */
function featureArgs(features: RsyncFeatures): readonly string[] {
  return [
    ...(features.xattrs === true ? ['--xattrs', '--filter=-x security.selinux', OWN_XATTRS] : []),
    ...(features.delete === true ? ['--delete'] : []),
    ...(features.compress === true ? ['--compress', '--compress-level=2'] : []),
  ];
}

export interface RsyncJob {
  readonly host: Host;
  readonly channel: Channel;
  readonly features: RsyncFeatures;
  readonly signal: AbortSignal;
  readonly bwlimit?: string;
  /** Told of bytes on their way. */
  readonly progress?: (bytes: number) => void;
}

/** Sends files and directories: each arrives under its own name. */
export async function rsyncSend(job: RsyncJob, sources: readonly string[]): Promise<void> {
  const { host, channel, features, signal } = job;
  const options = [...COMMON, ...limitArgs(job), ...featureArgs(features)];
  const args = ['-ar', ...options, '-e', RELAY, '--', ...sources, 'localhost:/tmp/foo'];
  const command = host.start(['rsync', ...args], {
    signal,
    timeoutMs: LIMIT_MS,
    withRelay: true,
    okExitCodes: [0, 24],
  });
  const { relay } = command;
  if (!relay) throw new AppError('internal', 'rsync was started without a relay');
  const alive = whileRunning(command, signal);
  await together('send', command.done, [
    channel.sendStream(counted(relay.output, job.progress)),
    feed(channel.stream(alive), relay.input),
  ]);
}

/** Receives into a directory that exists. */
export async function rsyncReceive(job: RsyncJob, directory: string): Promise<void> {
  const { host, channel, features, signal } = job;
  const options = [...COMMON, EXACT_TIMES, ...featureArgs(features)];
  const args = ['--server', '-vlogDtpre.iLsfx', ...options, '.', `${directory}/`];
  const command = host.start(['rsync', ...args], { signal, timeoutMs: LIMIT_MS });
  const alive = whileRunning(command, signal);
  await together('receive', command.done, [
    channel.sendStream(command.stdout),
    feed(counted(channel.stream(alive), job.progress), command.stdin),
  ]);
}

/** Aborts when the program fails: nobody reads the rest of the peer's stream then. */
function whileRunning({ done }: RunningCommand, signal: AbortSignal): AbortSignal {
  const failed = new AbortController();
  done.catch((error: unknown) => failed.abort(error));
  return AbortSignal.any([signal, failed.signal]);
}

/**
 * Reads the peer's stream to its end, even when the program has had enough of it: another one may follow. A stream that breaks off ends the
 * program's input: it knows that that is too early.
 */
async function feed(source: AsyncIterable<unknown>, target: NodeJS.WritableStream): Promise<void> {
  const writable = target as Writable;
  const closed = new AbortController();
  writable.once('close', () => closed.abort());
  try {
    for await (const chunk of source) {
      if (closed.signal.aborted || writable.write(chunk)) continue;
      await once(writable, 'drain', { signal: closed.signal }).catch(() => undefined);
    }
  } finally {
    writable.end();
  }
}

async function* counted(source: AsyncIterable<unknown>, progress: RsyncJob['progress']): AsyncGenerator<Buffer> {
  let total = 0;
  for await (const chunk of source) {
    total += (chunk as Buffer).length;
    progress?.(total);
    yield chunk as Buffer;
  }
}

/** The program's own word counts most; a broken pipe is only what followed. */
async function together(what: string, done: Promise<unknown>, copies: readonly Promise<void>[]): Promise<void> {
  const ends = await Promise.allSettled([done, ...copies]);
  const failures = ends.flatMap((end) => (end.status === 'rejected' ? [asError(end.reason)] : []));
  const [first] = failures;
  if (!first) return;
  throw new AppError('internal', `Rsync ${what} failed: ${failures.map(messageOf).join('; ')}`, { cause: first });
}
