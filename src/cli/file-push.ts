// Files into an instance.
import { createReadStream } from 'node:fs';
import { lstat, readdir, readlink, stat } from 'node:fs/promises';
import { basename, join, posix, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { AppError } from '#src/lib/errors.ts';
import type { Cli } from './cli.ts';
import type { Inside } from './file-pull.ts';
import { counted } from './save.ts';

interface Owner {
  readonly uid?: number;
  readonly gid?: number;
  readonly mode?: number;
}

export interface PushOptions extends Owner {
  readonly createDirs?: boolean;
  readonly recursive?: boolean;
}

const DIRECTORY_MODE = 0o755;

export async function push(
  cli: Cli,
  { sources, target }: { readonly sources: readonly string[]; readonly target: Inside },
  { createDirs = false, recursive = false, ...owner }: PushOptions,
): Promise<void> {
  // A tree keeps its name, as with lxc.
  const into = recursive || sources.length > 1 || (await isFolder(cli, target));
  const path = target.path.replace(/(?<=.)\/$/, '');
  if (createDirs) await makeDirectories(cli, target, into ? path : posix.dirname(path), owner);
  for (const source of sources) {
    const place = { ...target, path: into ? posix.join(path, nameOf(source)) : path };
    if (source === '-') await pushInput(cli, place, owner);
    else await pushOne(cli, source, { place, recursive, owner });
  }
}

function nameOf(source: string): string {
  if (source !== '-') return basename(resolve(source));
  throw new AppError('invalid', 'Standard input has no name; give the whole path of the file');
}

async function pushInput(cli: Cli, place: Inside, owner: Owner): Promise<void> {
  await pushFile(cli, place, { uid: 0, gid: 0, mode: 0o644, ...owner, content: cli.terminal.streams.stdin });
}

/** Or is to be one: a slash at the end says so. */
async function isFolder(cli: Cli, { client, name, path }: Inside): Promise<boolean> {
  if (path.endsWith('/')) return true;
  const found = await client.files.find(name, path, cli.signal);
  found?.content.destroy();
  return found?.kind === 'directory';
}

async function pushOne(
  cli: Cli,
  source: string,
  { place, recursive, owner }: { readonly place: Inside; readonly recursive: boolean; readonly owner: Owner },
): Promise<void> {
  // A link that was named is followed; those in a tree are links there as well.
  const status = await stat(source);
  if (!status.isDirectory())
    return pushFile(cli, place, { ...statusOf(status), ...owner, content: createReadStream(source) });
  if (!recursive) throw new AppError('invalid', `${source} is a directory; --recursive pushes it`);
  if (Object.keys(owner).length > 0) throw new AppError('invalid', "Can't supply uid/gid/mode in recursive mode");
  await pushTree(cli, source, place);
}

async function pushTree(cli: Cli, source: string, place: Inside): Promise<void> {
  const { client, name, path } = place;
  await client.files.put(name, path, { kind: 'directory', ...statusOf(await stat(source)) }, cli.signal);
  for (const entry of await readdir(source)) {
    const from = join(source, entry);
    const to = { ...place, path: posix.join(path, entry) };
    const status = await lstat(from);
    if (status.isDirectory()) await pushTree(cli, from, to);
    else if (status.isSymbolicLink()) {
      const content = Buffer.from(await readlink(from));
      await client.files.put(name, to.path, { kind: 'symlink', ...statusOf(status), content }, cli.signal);
    } else if (status.isFile()) await pushFile(cli, to, { ...statusOf(status), content: createReadStream(from) });
    else throw new AppError('unsupported', `${from} is neither file, directory nor link`);
  }
}

function statusOf({
  uid,
  gid,
  mode,
}: {
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
}): Required<Owner> {
  return { uid, gid, mode: mode & 0o7777 };
}

async function pushFile(
  cli: Cli,
  { client, name, path }: Inside,
  { content, ...owner }: Owner & { readonly content: Readable },
): Promise<void> {
  const body = content.pipe(counted(cli));
  content.once('error', (error) => body.destroy(error));
  await client.files.put(name, path, { kind: 'file', ...owner, content: body }, cli.signal);
  cli.endProgress();
}

/** The directory and what is missing above it. */
export async function makeDirectories(
  cli: Cli,
  { client, name }: Inside,
  path: string,
  { uid = 0, gid = 0 }: Owner,
): Promise<void> {
  const missing: string[] = [];
  for (let folder = path; folder !== '/'; folder = posix.dirname(folder)) {
    const found = await client.files.find(name, folder, cli.signal);
    found?.content.destroy();
    if (found) break;
    missing.unshift(folder);
  }
  for (const folder of missing) {
    await client.files.put(name, folder, { kind: 'directory', uid, gid, mode: DIRECTORY_MODE }, cli.signal);
  }
}
