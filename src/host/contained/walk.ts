// Path resolution inside a container's root, done here and not by the kernel: step by step on descriptors, every link resolved inside,
// whatever the container changes meanwhile. No step follows a link, a magic link of /proc, or "..".
import { close, constants, fstat, open, readFileSync, readlink, type Stats } from 'node:fs';
import { getSystemErrorMap, promisify } from 'node:util';
import { AppError, messageOf } from '#src/lib/errors.ts';
import { toContainer, type IdMapRange } from '../id-map.ts';

export const O_PATH = 0o10000000;
const STEP = O_PATH | constants.O_NOFOLLOW;
const MAX_LINKS = 40;
const MAX_PATH_BYTES = 4096;

const openFd = promisify(open);
const statFd = promisify(fstat);
const closeFd = promisify(close);
const readLink = promisify(readlink);

/** A failure of a file operation as the container's own would fail. */
export class ContainedError extends AppError {
  /** ENOENT, EACCES … */
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(code === 'ENOENT' || code === 'ENOTDIR' ? 'not_found' : 'internal', message, options);
    this.code = code;
  }
}

const texts = new Map<string, string>(getSystemErrorMap().values());

export function containedError(what: string, path: string, cause: unknown): ContainedError {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'EIO';
  const text = cause instanceof ContainedError ? cause.message : (texts.get(code) ?? messageOf(cause));
  return new ContainedError(code, `cannot ${what} ${path}: ${text}`, { cause });
}

/** Where paths are resolved. */
export interface Root {
  /** Opened with O_PATH. */
  readonly fd: number;
  /** Ids of mounts that may be entered: behind others may be a file system that never answers. */
  readonly mounts: ReadonlySet<string>;
  /** Owners that the container's root rules over; null: all. */
  readonly ids: IdMapRange | null;
}

export interface Found {
  /** With O_PATH; the caller closes it. */
  readonly fd: number;
  readonly stats: Stats;
}

export const READ = 4;
export const WRITE = 2;
export const SEARCH = 1;

/** What the container's own root may do: everything to what belongs to its ids, else what everybody may. */
export function mayAccess(ids: IdMapRange | null, stats: Stats, bits: number): boolean {
  return isOwned(ids, stats) || (stats.mode & bits) === bits;
}

export function isOwned(ids: IdMapRange | null, { uid, gid }: Stats): boolean {
  if (ids === null) return true;
  return toContainer(ids, 'uid', uid) !== undefined && toContainer(ids, 'gid', gid) !== undefined;
}

export function mountIdOf(fd: number): string {
  return /^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '';
}

export function partsOf(path: string): string[] {
  if (path.includes('\0') || Buffer.byteLength(path) > MAX_PATH_BYTES) throw new AppError('invalid', 'Invalid path');
  return path.split('/').filter((part) => part !== '' && part !== '.');
}

/** The way from the root to where we are; ".." takes its last step back. */
class Trail {
  readonly #root: Root;
  readonly #steps: Found[] = [];

  constructor(root: Root) {
    this.#root = root;
  }

  get top(): number {
    return this.#steps.at(-1)?.fd ?? this.#root.fd;
  }

  async push(step: Found): Promise<void> {
    this.#steps.push(step);
    if (!step.stats.isDirectory()) throw new ContainedError('ENOTDIR', 'not a directory');
    if (!mayAccess(this.#root.ids, step.stats, SEARCH)) throw new ContainedError('EACCES', 'permission denied');
  }

  async back(): Promise<void> {
    const last = this.#steps.pop();
    if (last) await closeFd(last.fd);
  }

  async reset(): Promise<void> {
    for (const { fd } of this.#steps.splice(0)) await closeFd(fd);
  }
}

/** Opens what is called `name` there, links not followed; the caller closes it. */
export async function stepInto(root: Root, directory: number, name: string): Promise<Found> {
  const fd = await openFd(`/proc/self/fd/${directory}/${name}`, STEP);
  try {
    if (!root.mounts.has(mountIdOf(fd)))
      throw new ContainedError('EACCES', `${name} is on a file system that is not served`);
    return { fd, stats: await statFd(fd) };
  } catch (error) {
    await closeFd(fd);
    throw error;
  }
}

/** The directory itself, and what is called `name` in it if anything is; both are closed when `use` has ended. */
export interface Place {
  readonly directory: number;
  readonly directoryStats: Stats;
  /** Empty: the root itself. */
  readonly name: string;
  readonly found: Found | undefined;
}

/** Resolves `path` and runs `use` there. `follow`: whether a link at its end is followed. */
export async function at<T>(
  root: Root,
  { path, follow }: { readonly path: string; readonly follow: boolean },
  use: (place: Place) => Promise<T>,
): Promise<T> {
  const trail = new Trail(root);
  try {
    return await resolve({ root, trail, follow, use }, partsOf(path));
  } finally {
    await trail.reset();
  }
}

interface Resolution<T> {
  readonly root: Root;
  readonly trail: Trail;
  readonly follow: boolean;
  readonly use: (place: Place) => Promise<T>;
}

async function resolve<T>(resolution: Resolution<T>, pending: string[]): Promise<T> {
  const { root, trail, follow, use } = resolution;
  let links = 0;
  for (;;) {
    const name = pending.shift();
    if (name === undefined) return atDirectory(trail.top, use);
    if (name === '..') {
      await trail.back();
      continue;
    }
    const isLast = pending.length === 0;
    const found = await stepInto(root, trail.top, name).catch((error: unknown) => absent(error, isLast));
    if (found && isLinkToFollow(found, follow || !isLast)) {
      if (++links > MAX_LINKS) await tooMany(found);
      pending.unshift(...(await linkSteps(trail, name, found)));
    } else if (isLast) return atEntry(trail.top, { name, found }, use);
    else if (found) await trail.push(found);
  }
}

function isLinkToFollow({ stats }: Found, follow: boolean): boolean {
  return follow && stats.isSymbolicLink();
}

async function tooMany({ fd }: Found): Promise<never> {
  await closeFd(fd);
  throw new ContainedError('ELOOP', 'too many levels of symbolic links');
}

/** Where the link leads to from here, or from the root, where the trail is then. */
async function linkSteps(trail: Trail, name: string, found: Found): Promise<readonly string[]> {
  const target = await linkTarget(trail.top, name, found);
  if (target.startsWith('/')) await trail.reset();
  return partsOf(target);
}

function absent(error: unknown, isLast: boolean): undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (!isLast || code !== 'ENOENT') throw error;
  return undefined;
}

/** Read by name: should it be another link by now, then that one is resolved, by the same steps. */
async function linkTarget(directory: number, name: string, { fd }: Found): Promise<string> {
  await closeFd(fd);
  return readLink(`/proc/self/fd/${directory}/${name}`);
}

async function atDirectory<T>(directory: number, use: (place: Place) => Promise<T>): Promise<T> {
  const stats = await statFd(directory);
  return use({ directory, directoryStats: stats, name: '', found: { fd: directory, stats } });
}

async function atEntry<T>(
  directory: number,
  { name, found }: { readonly name: string; readonly found: Found | undefined },
  use: (place: Place) => Promise<T>,
): Promise<T> {
  try {
    return await use({ directory, directoryStats: await statFd(directory), name, found });
  } finally {
    if (found) await closeFd(found.fd);
  }
}
