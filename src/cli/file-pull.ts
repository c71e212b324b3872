// Files out of an instance. What the instance says is not trusted: names are names, links are made and never followed.
import { createWriteStream } from 'node:fs';
import { chmod, lstat, mkdir, rm, symlink } from 'node:fs/promises';
import { dirname, join, posix } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { FoundFile } from '#src/client/files.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Cli, Target } from './cli.ts';
import { counted, isFolder } from './save.ts';

export interface PullOptions {
  readonly createDirs?: boolean;
  readonly recursive?: boolean;
}

const LINK_LIMIT = 40;

/** A path in an instance. */
export interface Inside extends Target {
  /** Absolute; a slash at the end is kept. */
  readonly path: string;
}

export async function pull(
  cli: Cli,
  { sources, target }: { readonly sources: readonly Inside[]; readonly target: string },
  options: PullOptions,
): Promise<void> {
  const into = target !== '-' && (await isFolderToBe(target, sources.length, options));
  if (options.createDirs === true && target !== '-') await mkdir(into ? target : dirname(target), { recursive: true });
  for (const source of sources) {
    const path = into ? join(target, posix.basename(source.path)) : target;
    await pullOne(cli, source, { path, options });
  }
}

/** Whether files go into the target, under their own names. */
async function isFolderToBe(target: string, count: number, options: PullOptions): Promise<boolean> {
  const { createDirs = false, recursive = false } = options;
  // A tree keeps its name, as with lxc.
  if (recursive || target.endsWith('/') || (await isFolder(target))) return true;
  if (count > 1 && !createDirs) {
    throw new AppError('invalid', 'More than one file to download, but target is not a directory');
  }
  return count > 1;
}

async function pullOne(
  cli: Cli,
  source: Inside,
  { path, options }: { readonly path: string; readonly options: PullOptions },
): Promise<void> {
  const { recursive = false } = options;
  const found = recursive ? await get(cli, source, source.path) : await followed(cli, source);
  if (found.kind === 'directory') {
    if (!recursive) {
      found.content.destroy();
      throw new AppError('invalid', `${source.name}${source.path} is a directory; --recursive pulls it`);
    }
    if (path === '-') throw new AppError('invalid', 'A directory does not fit into standard output; tar it with exec');
    return pullTree(cli, source, { found, path });
  }
  await save(cli, found, path);
}

async function get(cli: Cli, { client, name }: Inside, path: string): Promise<FoundFile> {
  return client.files.get(name, path, cli.signal);
}

/** The file that a link leads to, by the instance's own paths. */
async function followed(cli: Cli, source: Inside): Promise<FoundFile> {
  let { path } = source;
  for (let step = 0; step < LINK_LIMIT; step += 1) {
    const found = await get(cli, source, path);
    if (found.kind !== 'symlink') return found;
    path = posix.resolve(posix.dirname(path), await found.target());
  }
  throw new AppError('invalid', `Too many links: ${source.name}${source.path}`);
}

async function save(cli: Cli, found: FoundFile, path: string): Promise<void> {
  if (path === '-') return pipeline(found.content, cli.terminal.streams.stdout, { end: false });
  if (found.kind === 'symlink') return link(await found.target(), path);
  await withoutLink(path);
  await pipeline(found.content, counted(cli), createWriteStream(path, { mode: 0o600 }));
  await chmod(path, found.mode);
  cli.endProgress();
}

async function link(target: string, path: string): Promise<void> {
  await withoutLink(path);
  await symlink(target, path);
}

/** Nothing is written through a link that a tree brought along. */
async function withoutLink(path: string): Promise<void> {
  const status = await lstat(path).catch(() => undefined);
  if (status?.isSymbolicLink() === true) await rm(path);
}

async function pullTree(
  cli: Cli,
  source: Inside,
  { found, path }: { readonly found: FoundFile; readonly path: string },
): Promise<void> {
  const entries = await found.entries();
  await withoutLink(path);
  await mkdir(path, { recursive: true });
  for (const entry of entries) {
    if (entry === '' || entry === '.' || entry === '..' || entry.includes('/')) {
      throw new AppError('invalid', `The instance has a file of an impossible name: ${JSON.stringify(entry)}`);
    }
    const child = { ...source, path: posix.join(source.path, entry) };
    const file = await get(cli, child, child.path);
    const target = join(path, entry);
    if (file.kind === 'directory') await pullTree(cli, child, { found: file, path: target });
    else await save(cli, file, target);
  }
  // Last: a directory without the right to write can still be filled.
  await chmod(path, found.mode);
}
