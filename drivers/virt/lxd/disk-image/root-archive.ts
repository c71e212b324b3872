// A root file system as a tar stream: owners, modes, links, access lists and capabilities are kept; devices and sockets are left out.
import { unfit } from '#src/host/disk-content/disk.ts';
import { accessListText } from '#src/host/disk-content/ext/access-list.ts';
import type { Attribute } from '#src/host/disk-content/ext/attributes.ts';
import type { ExtFileSystem } from '#src/host/disk-content/ext/ext-file-system.ts';
import type { Inode } from '#src/host/disk-content/ext/inode.ts';
import { containerFstab } from './guest-fstab.ts';
import { TAR_END, type TarEntry, tarHeader, tarPadding, type TarType } from './tar-entry.ts';

const MAX_PATH_BYTES = 4096;
const MAX_DEPTH = 256;
const MAX_FSTAB_BYTES = 256 * 1024;
const FSTAB = 'etc/fstab';
const LOST_AND_FOUND = 'lost+found';

export interface ArchiveLimits {
  /** All contents together, holes included. */
  readonly maxBytes: number;
  readonly maxEntries: number;
}

export interface ArchiveReport {
  readonly entries: number;
  readonly bytes: number;
  /** Device nodes and sockets. */
  readonly leftOut: number;
}

export class RootArchive {
  readonly #fileSystem: ExtFileSystem;
  readonly #limits: ArchiveLimits;
  /** Where files with several names were written first. */
  readonly #linked = new Map<number, string>();
  readonly #directories = new Set<number>();
  #entries = 0;
  #bytes = 0;
  #leftOut = 0;

  constructor(fileSystem: ExtFileSystem, limits: ArchiveLimits) {
    this.#fileSystem = fileSystem;
    this.#limits = limits;
  }

  get report(): ArchiveReport {
    return { entries: this.#entries, bytes: this.#bytes, leftOut: this.#leftOut };
  }

  /** The whole archive; the same file system gives the same bytes. AppError 'invalid' for a damaged one, and past a limit. */
  *stream(): Generator<Buffer> {
    yield* this.#directory('.', this.#fileSystem.root, 0);
    yield TAR_END;
  }

  *#directory(path: string, directory: Inode, depth: number): Generator<Buffer> {
    if (this.#directories.has(directory.number) || depth > MAX_DEPTH)
      throw unfit('the image has a directory with two names, or too many in each other');
    this.#directories.add(directory.number);
    yield this.#header({ path: `${path}/`, type: 'directory' }, directory);
    for (const { name, inode: number } of this.#fileSystem.entries(directory)) {
      if (depth === 0 && name === LOST_AND_FOUND) continue;
      const inside = path === '.' ? name : `${path}/${name}`;
      if (inside.length > MAX_PATH_BYTES) throw unfit('the image has a path that is too long');
      const inode = this.#fileSystem.inode(number);
      if (inode.kind === 'directory') yield* this.#directory(inside, inode, depth + 1);
      else yield* this.#other(inside, inode);
    }
  }

  *#other(path: string, inode: Inode): Generator<Buffer> {
    if (inode.kind === 'device' || inode.kind === 'socket') {
      this.#leftOut += 1;
      return;
    }
    const first = this.#linked.get(inode.number);
    if (first !== undefined) {
      yield this.#header({ path, type: 'hardlink', linkTarget: first }, inode);
      return;
    }
    if (inode.links > 1) this.#linked.set(inode.number, path);
    if (inode.kind === 'file') yield* this.#file(path, inode);
    else if (inode.kind === 'fifo') yield this.#header({ path, type: 'fifo' }, inode);
    else yield this.#header({ path, type: 'symlink', linkTarget: this.#fileSystem.linkTarget(inode) }, inode);
  }

  *#file(path: string, inode: Inode): Generator<Buffer> {
    if (path === FSTAB && inode.sizeBytes <= MAX_FSTAB_BYTES) {
      const text = Buffer.concat([...this.#fileSystem.content(inode)]).toString('latin1');
      const content = Buffer.from(containerFstab(text), 'latin1');
      yield this.#header({ path, type: 'file', sizeBytes: content.length }, inode);
      yield content;
      yield tarPadding(content.length);
      return;
    }
    yield this.#header({ path, type: 'file', sizeBytes: inode.sizeBytes }, inode);
    yield* this.#fileSystem.content(inode);
    yield tarPadding(inode.sizeBytes);
  }

  #header(
    what: { readonly path: string; readonly type: TarType; readonly linkTarget?: string; readonly sizeBytes?: number },
    inode: Inode,
  ): Buffer {
    const { mode, uid, gid, modified } = inode;
    const records = what.type === 'hardlink' ? [] : this.#fileSystem.attributes(inode).flatMap(recordsOf);
    const entry: TarEntry = { sizeBytes: 0, ...what, mode, uid, gid, modified, records };
    this.#count(entry.sizeBytes);
    return tarHeader(entry);
  }

  #count(bytes: number): void {
    this.#entries += 1;
    this.#bytes += bytes;
    if (this.#entries > this.#limits.maxEntries)
      throw unfit(`the root file system has more than ${this.#limits.maxEntries} files`);
    if (this.#bytes > this.#limits.maxBytes)
      throw unfit(`the files of the root file system are larger than ${this.#limits.maxBytes} bytes together`);
  }
}

/** What means something in a container; the names are those of GNU tar. */
function recordsOf({ name, value }: Attribute): readonly (readonly [string, Buffer])[] {
  if (name === 'system.posix_acl_access') return [['SCHILY.acl.access', Buffer.from(accessListText(value))]];
  if (name === 'system.posix_acl_default') return [['SCHILY.acl.default', Buffer.from(accessListText(value))]];
  const isKept = name === 'security.capability' || (name.startsWith('user.') && !/[=\0]/.test(name));
  return isKept ? [[`SCHILY.xattr.${name}`, value]] : [];
}
