// Files of instances, running or not (lxd-engine-contract section 2.6).
import { constants, type ReadStream } from 'node:fs';
import { posix } from 'node:path';
import type { Readable } from 'node:stream';
import type { Attributes, Ownership } from '#src/host/contained/attributes.ts';
import type { ContainedTree } from '#src/host/contained/tree.ts';
import { AppError } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceInfo } from './instances.ts';
import type { InstanceTrees } from './trees.ts';

const DEFAULT_FILE_MODE = 0o644;
const DEFAULT_DIRECTORY_MODE = 0o750;

/** What is at a path; `content` opens a file at a place in it. */
export type FoundEntry =
  | { readonly kind: 'file'; readonly attributes: Attributes; readonly content: (range?: ByteRange) => ReadStream }
  | { readonly kind: 'directory'; readonly attributes: Attributes; readonly names: readonly string[] }
  | { readonly kind: 'symlink'; readonly attributes: Attributes; readonly target: string };

/** Both ends belong to it. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

export interface NewEntry {
  readonly path: string;
  readonly kind: 'file' | 'directory' | 'symlink';
  /** Only of what is not there yet. */
  readonly owner: Partial<Ownership>;
  /** A file is extended, and must be there. */
  readonly append: boolean;
  /** Content of a file, target of a link. */
  readonly content: Readable | string;
}

export interface FilesParts {
  readonly context: EngineContext;
  readonly trees: InstanceTrees;
}

export class InstanceFiles {
  readonly #parts: FilesParts;

  constructor(parts: FilesParts) {
    this.#parts = parts;
  }

  attributes(info: InstanceInfo, path: string): Promise<Attributes> {
    return this.#parts.trees.use(info, (tree) => served(tree, path));
  }

  /** `take` is given what is there, and has it until its promise settles. */
  async read(info: InstanceInfo, path: string, take: (entry: FoundEntry) => Promise<void>): Promise<void> {
    await this.#parts.trees.use(info, async (tree) => {
      const attributes = await served(tree, path);
      if (attributes.kind === 'directory') await take({ kind: 'directory', attributes, names: await tree.list(path) });
      else if (attributes.kind === 'symlink')
        await take({ kind: 'symlink', attributes, target: await target(tree, path) });
      else await readFile(tree, path, take);
    });
    this.#publish('instance-file-retrieved', info, path);
  }

  async write(info: InstanceInfo, entry: NewEntry): Promise<void> {
    await this.#parts.trees.use(info, async (tree) => {
      if (entry.kind === 'file') await writeFile(tree, entry);
      else if (entry.kind === 'directory') await makeDirectory(tree, entry);
      else await makeLink(tree, entry);
    });
    this.#publish('instance-file-pushed', info, entry.path);
  }

  /** A file, a link, or an empty directory. */
  async remove(info: InstanceInfo, path: string): Promise<void> {
    await this.#parts.trees.use(info, async (tree) => {
      const { kind } = await tree.attributes(path);
      await (kind === 'directory' ? tree.removeDirectory(path) : tree.removeFile(path));
    });
    this.#publish('instance-file-deleted', info, path);
  }

  #publish(action: string, { record }: InstanceInfo, path: string): void {
    const { name, project } = record;
    const source = `/1.0/instances/${name}`;
    this.#parts.context.events.lifecycle({ action, source, project, context: { path } });
  }
}

async function served(tree: ContainedTree, path: string): Promise<Attributes> {
  const attributes = await tree.attributes(path);
  if (attributes.kind === 'other') throw new AppError('internal', 'Bad file type: neither file, directory nor link');
  return attributes;
}

/** What was opened is described, whatever was there before. */
async function readFile(tree: ContainedTree, path: string, take: (entry: FoundEntry) => Promise<void>): Promise<void> {
  const { handle, attributes } = await tree.open(path, { read: true });
  try {
    const content = (range?: ByteRange) => handle.createReadStream({ ...range, autoClose: false });
    await take({ kind: 'file', attributes, content });
  } finally {
    await handle.close();
  }
}

/** Where the link leads to, as an absolute path. */
async function target(tree: ContainedTree, path: string): Promise<string> {
  return posix.resolve('/', posix.dirname(path), await tree.readLink(path));
}

function ownership({ uid = 0, gid = 0, mode }: Partial<Ownership>, defaultMode: number): Ownership {
  return { uid, gid, mode: mode ?? defaultMode };
}

async function writeFile(tree: ContainedTree, { path, owner, append, content }: NewEntry): Promise<void> {
  const { handle } = await tree.open(
    path,
    append ? { write: true, append } : { write: true, truncate: true, create: ownership(owner, DEFAULT_FILE_MODE) },
  );
  try {
    if (typeof content === 'string') await handle.writeFile(content);
    else for await (const chunk of content) await handle.writeFile(chunk as Buffer);
  } finally {
    await handle.close();
  }
}

/** One that is there stays as it is. */
async function makeDirectory(tree: ContainedTree, { path, owner }: NewEntry): Promise<void> {
  const found = await present(tree, path, { follow: true });
  if (found?.kind === 'directory') return;
  await tree.makeDirectory(path, ownership(owner, DEFAULT_DIRECTORY_MODE));
}

async function makeLink(tree: ContainedTree, { path, owner, content }: NewEntry): Promise<void> {
  const wanted = typeof content === 'string' ? content : '';
  if (wanted === '' || wanted.includes('\0') || Buffer.byteLength(wanted) >= MAX_TARGET_BYTES) {
    throw new AppError('invalid', 'Invalid symlink target');
  }
  const found = await present(tree, path, { follow: false });
  if (found?.kind === 'symlink' && (await tree.readLink(path)) === wanted) return;
  await tree.makeLink(path, wanted, ownership(owner, constants.S_IRWXU));
}

const MAX_TARGET_BYTES = 4096;

async function present(
  tree: ContainedTree,
  path: string,
  options: { readonly follow: boolean },
): Promise<Attributes | undefined> {
  try {
    return await tree.attributes(path, options);
  } catch (error) {
    if (error instanceof AppError && error.kind === 'not_found') return undefined;
    throw error;
  }
}
