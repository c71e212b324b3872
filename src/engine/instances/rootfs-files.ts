// Files in the root of an instance that does not run: nothing in it may lead a write outside (links are resolved inside).
import { constants } from 'node:fs';
import { lstat, mkdir, lchown, open, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { getSystemErrorMap } from 'node:util';
import { AppError, messageOf } from '#src/lib/errors.ts';

const MAX_LINKS = 40;
/** In the system's words. */
const REASONS: ReadonlyMap<string, string> = new Map(getSystemErrorMap().values());

/**
 * The path on the host of `path` as the container would see it, with every link in it resolved inside `root`. Components that are
 * missing are taken as they are. Safe only while no process of the container runs: nobody else changes the tree then.
 */
export async function resolveInside(root: string, path: string): Promise<string> {
  const pending = parts(path);
  let at: string[] = [];
  let links = 0;
  for (;;) {
    const next = pending.shift();
    if (next === undefined) return join(root, ...at);
    if (next === '..') {
      at = at.slice(0, -1);
      continue;
    }
    const here = join(root, ...at, next);
    const target = await linkTarget(here);
    if (target === undefined) {
      at.push(next);
      continue;
    }
    if (++links > MAX_LINKS) throw new AppError('invalid', `too many links in ${path} of the container`);
    if (target.startsWith('/')) at = [];
    pending.unshift(...parts(target));
  }
}

function parts(path: string): string[] {
  return path.split('/').filter((part) => part !== '' && part !== '.');
}

/** undefined: no link, or nothing there. */
async function linkTarget(path: string): Promise<string | undefined> {
  const found = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  return found?.isSymbolicLink() === true ? readlink(path) : undefined;
}

export interface FileOwner {
  readonly uid: number;
  readonly gid: number;
}

export interface WriteInside {
  readonly root: string;
  /** As the container sees it. */
  readonly path: string;
  readonly content: string;
  /** Container root, as this host sees it. */
  readonly owner: FileOwner;
  /** Leave an existing file alone. */
  readonly createOnly?: boolean;
}

/** Writes a file as the container's root would: its owner, mode kept or 0644, parents made. False: left alone. */
export async function writeInside(request: WriteInside): Promise<boolean> {
  try {
    return await write(request);
  } catch (error) {
    if (error instanceof AppError) throw error;
    // What is in the way is the container's doing.
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    const kind = /^(ENOTDIR|EISDIR|ELOOP|ENAMETOOLONG|EROFS)$/u.test(code) ? 'invalid' : 'internal';
    const reason = REASONS.get(code) ?? messageOf(error);
    throw new AppError(kind, `cannot write ${shortened(request.path)} of the container: ${reason}`, { cause: error });
  }
}

function shortened(path: string): string {
  return path.length <= 200 ? path : `${path.slice(0, 200)}…`;
}

async function write({ root, path, content, owner, createOnly = false }: WriteInside): Promise<boolean> {
  const target = await resolveInside(root, path);
  const found = await lstat(target).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (found && createOnly) return false;
  if (found && !found.isFile()) throw new AppError('invalid', `${path} of the container is not a regular file`);
  await makeParents(root, target, owner);
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW;
  const file = await open(target, flags, 0o644);
  try {
    await file.writeFile(content);
    if (!found) {
      await file.chmod(0o644); // the umask has no say
      await file.chown(owner.uid, owner.gid);
    }
  } finally {
    await file.close();
  }
  return true;
}

async function makeParents(root: string, target: string, owner: FileOwner): Promise<void> {
  const inner = parts(target.slice(root.length)).slice(0, -1);
  for (let depth = 1; depth <= inner.length; depth++) {
    const directory = join(root, ...inner.slice(0, depth));
    const made = await mkdir(directory, { mode: 0o755 }).then(
      () => true,
      (error: NodeJS.ErrnoException) => {
        if (error.code === 'EEXIST') return false;
        throw error;
      },
    );
    if (made) await lchown(directory, owner.uid, owner.gid);
  }
}
