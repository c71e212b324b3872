// Unpacks archives that nobody vouches for into a directory. Why that is safe:
// - the programs have no power on this host (sandbox.ts): outside of the directory the kernel refuses them, inside it they make
//   no device nodes; what little they may make of that kind (character device 0:0) is removed afterwards;
// - GNU tar strips leading slashes, refuses members with "..", and replaces a link that leads out by a placeholder until the end,
//   so that no member is written through it; unsquashfs makes directories itself and never follows a link it made;
// - what an archive claims to contain is added up while it is listed, before it is written, holes and all, and every byte of a
//   compressed stream is counted: bombs end at the caller's limits; so do files (RLIMIT_FSIZE) and memory (RLIMIT_AS); and none
//   fills the file system, of which a part is always left free (space.ts);
// - complaints of the programs are failures unless they are known to be harmless, so half an archive is never taken for a whole.
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { AppError, asError, kindOf } from '#src/lib/errors.ts';
import { CommandError } from '../command-error.ts';
import type { Argv, Host, RunOptions } from '../host.ts';
import { type IdMapRange, NOBODYS_IDS, sameIdMap } from '../id-map.ts';
import { SpaceWatch } from '../space.ts';
import { Complaints, unfit } from './complaints.ts';
import { detectFormat } from './formats.ts';
import { ListingCounter, type UnpackLimits } from './listing.ts';
import { Sandbox } from './sandbox.ts';
import { feedTar, type TarSource, TarStreamCheck } from './tar-stream.ts';

const COPY_LIMIT_MS = 24 * 3600_000;

export type { UnpackLimits } from './listing.ts';

export interface UnpackTarget {
  readonly directory: string;
  /** Ids that the files get: those of the archive, mapped. null: unmapped. */
  readonly owners: IdMapRange | null;
}

export interface UnpackOptions {
  /** A directory of a tar of which the content alone is wanted, /dev included; AppError 'invalid' when it is not there. */
  readonly subtree?: string;
  /** Its own entry, under its last name, as well. */
  readonly keepsName?: boolean;
  /** It is unpacked below this directory and then copied: the file system of the target does not serve user namespaces. */
  readonly elsewhere?: string | undefined;
  readonly limits: UnpackLimits;
  readonly signal: AbortSignal;
}

export interface UnpackReport {
  readonly entries: number;
  readonly bytes: number;
  /** Device nodes of the archive that were left out. Those in its dev/ are not even looked at. */
  readonly devicesSkipped: number;
}

interface Work extends UnpackOptions {
  readonly host: Host;
  readonly path: string;
  /** To watch the space there. */
  readonly directory: string;
  readonly sandbox: Sandbox;
}

const UNTAR: Argv = [
  'tar',
  '--extract',
  '--file=-',
  '-vv',
  '--quoting-style=escape',
  '--numeric-owner',
  '--same-owner',
  '--preserve-permissions',
  '--acls',
  '--xattrs',
  '--xattrs-include=user.*',
  '--xattrs-include=security.capability',
  '--restrict',
  '--force-local',
  '--anchored',
  '--wildcards',
]; // prettier-ignore
/** What an image has in /dev is the host's to make. */
const WITHOUT_DEV: readonly string[] = ['dev/*', './dev/*', 'rootfs/dev/*', './rootfs/dev/*'].map(
  (pattern) => `--exclude=${pattern}`,
);
/** unsquashfs takes as much memory as it finds unless told otherwise. */
const UNSQUASH: Argv = ['unsquashfs', '-f', '-n', '-d', '.', '-da', '64', '-fr', '64', '/proc/self/fd/0'];
const LIST_SQUASH: Argv = ['unsquashfs', '-lln', '/proc/self/fd/0'];
const REMOVE_DEVICES: Argv = [
  'find',
  '.',
  '-xdev',
  '(',
  '-type',
  'b',
  '-o',
  '-type',
  'c',
  ')',
  '-printf',
  'x',
  '-delete',
];

/** Unpacks a tar (plain, gzip, bzip2, xz, lzma, zstd) or squashfs file. AppError 'invalid' when it is not fit; then part may be there. */
export async function unpackArchive(
  host: Host,
  path: string,
  target: UnpackTarget,
  options: UnpackOptions,
): Promise<UnpackReport> {
  options.signal.throwIfAborted();
  if (options.elsewhere !== undefined) return unpackElsewhere(host, path, target, options);
  const format = await detectFormat(path);
  const { directory, owners } = target;
  const limits = { fileBytes: options.limits.maxBytes, signal: options.signal };
  const { sandbox, ids } = await openSandbox(host, target, limits);
  using open = sandbox;
  const work = { ...options, host, path, directory, sandbox: open };
  const report = await (format === 'squashfs' ? unpackSquashfs(work) : unpackTar(work, { path, format }));
  const { stdout: removed } = await open.run(REMOVE_DEVICES);
  if (!sameIdMap(ids, owners)) await host.shiftOwners(directory, { from: ids, to: owners }, options.signal);
  return { ...report, devicesSkipped: report.devicesSkipped + removed.length };
}

async function unpackElsewhere(
  host: Host,
  path: string,
  { directory, owners }: UnpackTarget,
  { elsewhere = '', ...options }: UnpackOptions,
): Promise<UnpackReport> {
  const { signal } = options;
  const staging = join(elsewhere, randomUUID());
  try {
    await host.makeDirectory(staging, { mode: 0o711 });
    const report = await unpackArchive(host, path, { directory: staging, owners: null }, options);
    await host.run(['cp', '-a', '-T', '--', staging, directory], { signal, timeoutMs: COPY_LIMIT_MS });
    await host.shiftOwners(directory, { from: null, to: owners }, signal);
    return report;
  } finally {
    await host.removeTree(staging);
  }
}

/** The sandbox, and the ids that its programs' files have on the disk. */
async function openSandbox(
  host: Host,
  { directory, owners }: UnpackTarget,
  limits: { fileBytes: number; signal: AbortSignal },
): Promise<{ sandbox: Sandbox; ids: IdMapRange | null }> {
  if (owners === null && (await host.mounts.canMapIds(directory))) {
    return { sandbox: await Sandbox.mapped(host, directory, limits), ids: null };
  }
  // A map of several ranges may lead to ids that somebody has on the host: the programs get others.
  const ids = owners && !owners.ranges ? owners : NOBODYS_IDS;
  await host.chown(directory, ids.uidBase, ids.gidBase);
  return { sandbox: await Sandbox.owning(host, { directory, owners: ids }, limits), ids };
}

function selection({ subtree, keepsName = false }: UnpackOptions): readonly string[] {
  if (subtree === undefined) return WITHOUT_DEV;
  const strip = subtree.split('/').length - (keepsName ? 1 : 0);
  return ['--no-wildcards', `--strip-components=${strip}`, '--', subtree];
}

async function unpackTar(work: Work, source: TarSource): Promise<UnpackReport> {
  const { host, sandbox, limits, signal } = work;
  const counter = new ListingCounter(limits);
  const complaints = new Complaints();
  const stop = new AbortController();
  using _space = new SpaceWatch(work.directory, stop);
  const tar = host.start(sandbox.command([...UNTAR, ...selection(work)]), {
    ...tarOptions(sandbox),
    signal: AbortSignal.any([signal, stop.signal]),
    onStderr: (chunk) => complaints.add(chunk),
  });
  const listed = count(tar.stdout, counter, stop);
  const check = new TarStreamCheck(limits);
  const [fed, done] = await Promise.allSettled([
    feedTar(host, source, { sandbox, sink: tar.stdin, check }),
    tar.done,
    listed,
  ]);
  signal.throwIfAborted();
  if (stop.signal.aborted) throw stop.signal.reason;
  const devicesSkipped = done.status === 'fulfilled' ? complaints.settle() : 0;
  if (done.status === 'rejected') throw unfitFor(done.reason);
  // A tar that is content has seen the end of the archive; it need not read what comes after it.
  if (fed.status === 'rejected' && !isBrokenPipe(fed.reason)) throw unfitFor(fed.reason);
  return { entries: counter.entries, bytes: counter.bytes, devicesSkipped };
}

function isBrokenPipe(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return code === 'EPIPE' || code === 'ERR_STREAM_PREMATURE_CLOSE';
}

/** Exit status 2 is judged by what was said. */
function tarOptions(sandbox: Sandbox): RunOptions {
  return { ...sandbox.options, okExitCodes: [0, 2] };
}

async function unpackSquashfs({
  host,
  sandbox,
  path,
  directory,
  limits,
  signal,
  subtree,
}: Work): Promise<UnpackReport> {
  if (subtree !== undefined) throw new AppError('unsupported', 'Backups in squashfs files are not supported');
  // unsquashfs opens its file by name, so the file must be readable to nobody: it is, when seen through nobody's map.
  using image = await host.mounts.openMapped(path, sandbox.ids, { readonly: true });
  const counter = new ListingCounter(limits);
  const stop = new AbortController();
  const options = { ...sandbox.options, inputFile: image.path, signal: AbortSignal.any([signal, stop.signal]) };
  const lister = host.start(sandbox.command(LIST_SQUASH), options);
  const listed = count(lister.stdout, counter, stop);
  await Promise.allSettled([lister.done, listed]);
  signal.throwIfAborted();
  if (stop.signal.aborted) throw stop.signal.reason;
  await lister.done.catch((error: unknown) => {
    throw unfitFor(error);
  });
  const complaints = new Complaints();
  const onStderr = (chunk: Buffer) => complaints.add(chunk);
  using _space = new SpaceWatch(directory, stop);
  await sandbox.run(UNSQUASH, { ...options, onStderr, okExitCodes: [0, 2] }).catch((error: unknown) => {
    signal.throwIfAborted();
    if (stop.signal.aborted) throw stop.signal.reason;
    throw unfitFor(error);
  });
  return { entries: counter.entries, bytes: counter.bytes, devicesSkipped: complaints.settle() };
}

async function count(output: NodeJS.ReadableStream, counter: ListingCounter, stop: AbortController): Promise<void> {
  try {
    for await (const chunk of output) counter.add(chunk);
  } catch (error) {
    stop.abort(asError(error)); // a limit, or the output broke off: the program ends either way
  }
}

function unfitFor(error: unknown): unknown {
  if (kindOf(error) === 'invalid' || !(error instanceof CommandError) || error.exitCode === null) return error;
  return unfit(error.stderr.trim().split('\n')[0] ?? '', error);
}
