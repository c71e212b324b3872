// An SFTP version 3 server (as OpenSSH speaks it) for one client, over the files of one container.
import type { StatsFs } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { posix } from 'node:path';
import type { AttributeChange, Attributes, Ownership } from '#src/host/contained/attributes.ts';
import type { FileAccess } from '#src/host/contained/descriptor-paths.ts';
import type { ContainedTree } from '#src/host/contained/tree.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import { longName } from './long-name.ts';
import {
  attributes,
  bytes,
  packet,
  PacketReader,
  STATUS,
  TYPE,
  uint32,
  uint64,
  type WireAttributes,
} from './packets.ts';

const VERSION = 3;
const MAX_HANDLES = 1000;
const MAX_READ_BYTES = 256 * 1024;
/** Entries of a directory in one answer. */
const ENTRIES = 100;
const DEFAULT_FILE_MODE = 0o644;
const DEFAULT_DIRECTORY_MODE = 0o755;
const PERMISSIONS = 0o7777;
const FLAG = { read: 1, write: 2, append: 4, create: 8, truncate: 16, exclusive: 32 } as const;
/** What OpenSSH adds, and sshfs uses. */
const EXTENSIONS = ['posix-rename@openssh.com', '1', 'fsync@openssh.com', '1', 'statvfs@openssh.com', '2'] as const;
const MAX_NAME_BYTES = 255;

type Handle =
  | { readonly kind: 'file'; readonly file: FileHandle }
  | { readonly kind: 'directory'; readonly path: string; readonly names: string[] };

type Answer = (id: Buffer, reader: PacketReader) => Promise<Buffer>;

export class SftpSession implements AsyncDisposable {
  readonly #tree: ContainedTree;
  readonly #handles = new Map<string, Handle>();
  #nextHandle = 1;
  #isReady = false;

  constructor(tree: ContainedTree) {
    this.#tree = tree;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const handle of this.#handles.values())
      if (handle.kind === 'file') await handle.file.close().catch(() => undefined);
    this.#handles.clear();
  }

  /** The answer to a packet. AppError 'invalid' for what is no SFTP: the client is to be cut off. */
  async answer(request: Buffer): Promise<Buffer> {
    const reader = new PacketReader(request);
    const type = reader.byte();
    if (!this.#isReady) {
      if (type !== TYPE.init) throw new AppError('invalid', 'SFTP: the client does not introduce itself');
      this.#isReady = true;
      return packet(TYPE.version, uint32(VERSION), ...EXTENSIONS.map(bytes));
    }
    const id = uint32(reader.uint32());
    const answer = this.#answers[type];
    if (!answer) return status(id, STATUS.unsupported, 'Operation unsupported');
    try {
      return await answer(id, reader);
    } catch (error) {
      return status(id, statusOf(error), messageOf(error));
    }
  }

  readonly #answers: Readonly<Record<number, Answer>> = {
    [TYPE.open]: (id, reader) => this.#open(id, reader),
    [TYPE.opendir]: (id, reader) => this.#openDirectory(id, reader),
    [TYPE.close]: (id, reader) => this.#close(id, reader),
    [TYPE.read]: (id, reader) => this.#read(id, reader),
    [TYPE.write]: (id, reader) => this.#write(id, reader),
    [TYPE.readdir]: (id, reader) => this.#readDirectory(id, reader),
    [TYPE.lstat]: async (id, reader) => attrs(id, await this.#tree.attributes(pathOf(reader))),
    [TYPE.stat]: async (id, reader) => attrs(id, await this.#tree.attributes(pathOf(reader), { follow: true })),
    [TYPE.fstat]: async (id, reader) => attrs(id, await this.#attributesOf(reader)),
    [TYPE.setstat]: (id, reader) => done(id, this.#tree.change(pathOf(reader), changeOf(reader.attributes()))),
    [TYPE.fsetstat]: (id, reader) =>
      done(id, this.#tree.changeOpened(this.#file(reader), changeOf(reader.attributes()))),
    [TYPE.remove]: (id, reader) => done(id, this.#tree.removeFile(pathOf(reader))),
    [TYPE.rmdir]: (id, reader) => done(id, this.#tree.removeDirectory(pathOf(reader))),
    [TYPE.mkdir]: (id, reader) =>
      done(id, this.#tree.makeDirectory(pathOf(reader), ownershipOf(reader.attributes(), DEFAULT_DIRECTORY_MODE))),
    [TYPE.realpath]: async (id, reader) => names(id, [{ name: pathOf(reader) }]),
    [TYPE.readlink]: async (id, reader) => names(id, [{ name: await this.#tree.readLink(pathOf(reader)) }]),
    [TYPE.symlink]: (id, reader) => {
      const target = reader.text(); // first, as OpenSSH has it, whatever the draft says
      return done(id, this.#tree.makeLink(pathOf(reader), target, { uid: 0, gid: 0 }));
    },
    [TYPE.rename]: (id, reader) => done(id, this.#rename(pathOf(reader), pathOf(reader))),
    [TYPE.extended]: (id, reader) => this.#extended(id, reader),
  };

  async #open(id: Buffer, reader: PacketReader): Promise<Buffer> {
    const path = pathOf(reader);
    const flags = reader.uint32();
    const access = accessOf(flags, reader.attributes());
    this.#requireRoom();
    try {
      const { handle } = await this.#tree.open(path, access);
      return this.#opened(id, { kind: 'file', file: handle });
    } catch (error) {
      // As by open(2): a directory can be opened for reading, though not read. Incus' client does so and asks then what it is.
      if (access.write || codeOf(error) !== 'EISDIR') throw error;
      return this.#opened(id, { kind: 'directory', path, names: [] });
    }
  }

  async #openDirectory(id: Buffer, reader: PacketReader): Promise<Buffer> {
    const path = pathOf(reader);
    this.#requireRoom();
    const found = await this.#tree.list(path);
    return this.#opened(id, { kind: 'directory', path, names: ['.', '..', ...found] });
  }

  #requireRoom(): void {
    if (this.#handles.size >= MAX_HANDLES) throw new AppError('unavailable', 'Too many open files');
  }

  #opened(id: Buffer, handle: Handle): Buffer {
    const name = String(this.#nextHandle++);
    this.#handles.set(name, handle);
    return packet(TYPE.handle, id, bytes(name));
  }

  #handle(reader: PacketReader): readonly [string, Handle] {
    const name = reader.text();
    const handle = this.#handles.get(name);
    if (!handle) throw new AppError('invalid', 'Invalid handle');
    return [name, handle];
  }

  #file(reader: PacketReader): FileHandle {
    const [, handle] = this.#handle(reader);
    if (handle.kind !== 'file') throw new AppError('invalid', 'The handle is not of a file');
    return handle.file;
  }

  #attributesOf(reader: PacketReader): Promise<Attributes> {
    const [, handle] = this.#handle(reader);
    if (handle.kind === 'file') return this.#tree.attributesOf(handle.file);
    return this.#tree.attributes(handle.path, { follow: true });
  }

  async #close(id: Buffer, reader: PacketReader): Promise<Buffer> {
    const [name, handle] = this.#handle(reader);
    this.#handles.delete(name);
    if (handle.kind === 'file') await handle.file.close();
    return status(id, STATUS.ok, '');
  }

  async #read(id: Buffer, reader: PacketReader): Promise<Buffer> {
    const file = this.#file(reader);
    const offset = reader.uint64();
    const buffer = Buffer.allocUnsafe(Math.min(reader.uint32(), MAX_READ_BYTES));
    const { bytesRead } = await file.read(buffer, 0, buffer.length, offset);
    if (bytesRead === 0 && buffer.length > 0) return status(id, STATUS.endOfFile, 'EOF');
    return packet(TYPE.data, id, bytes(buffer.subarray(0, bytesRead)));
  }

  async #write(id: Buffer, reader: PacketReader): Promise<Buffer> {
    const file = this.#file(reader);
    let offset = reader.uint64();
    let data = reader.bytes();
    while (data.length > 0) {
      const { bytesWritten } = await file.write(data, 0, data.length, offset);
      data = data.subarray(bytesWritten);
      offset += bytesWritten;
    }
    return status(id, STATUS.ok, '');
  }

  async #readDirectory(id: Buffer, reader: PacketReader): Promise<Buffer> {
    const [, handle] = this.#handle(reader);
    if (handle.kind !== 'directory') throw new AppError('invalid', 'The handle is not of a directory');
    for (;;) {
      const next = handle.names.splice(0, ENTRIES);
      if (next.length === 0) return status(id, STATUS.endOfFile, 'EOF');
      const found = await Promise.all(next.map((name) => this.#entry(handle.path, name)));
      const there = found.filter((entry) => entry !== undefined);
      if (there.length > 0) return names(id, there);
    }
  }

  /** undefined: gone meanwhile. What cannot be looked at, is behind a mount for instance, has a name all the same. */
  async #entry(directory: string, name: string): Promise<Entry | undefined> {
    try {
      return { name, found: await this.#tree.attributes(posix.join(directory, name)) };
    } catch (error) {
      return statusOf(error) === STATUS.noSuchFile ? undefined : { name };
    }
  }

  /** Version 3 does not replace what is there; OpenSSH's extension does. */
  async #rename(from: string, to: string): Promise<void> {
    const found = await this.#tree.attributes(to).catch((error: unknown) => {
      if (statusOf(error) === STATUS.noSuchFile) return undefined;
      throw error;
    });
    if (found) throw new AppError('conflict', `${to} exists`);
    await this.#tree.rename(from, to);
  }

  async #extended(id: Buffer, reader: PacketReader): Promise<Buffer> {
    const name = reader.text();
    if (name === EXTENSIONS[0]) return done(id, this.#tree.rename(pathOf(reader), pathOf(reader)));
    if (name === EXTENSIONS[2]) return done(id, this.#file(reader).sync());
    if (name === EXTENSIONS[4]) return fileSystem(id, await this.#tree.fileSystem(pathOf(reader)));
    return status(id, STATUS.unsupported, 'Operation unsupported');
  }
}

interface Entry {
  readonly name: string;
  readonly found?: Attributes;
}

/** Relative ones are so to the root: nobody is at home here. */
function pathOf(reader: PacketReader): string {
  return posix.resolve('/', reader.text());
}

function accessOf(flags: number, given: WireAttributes): FileAccess {
  const has = (flag: number) => (flags & flag) !== 0;
  return {
    read: has(FLAG.read),
    write: has(FLAG.write) || has(FLAG.append),
    append: has(FLAG.append),
    truncate: has(FLAG.truncate),
    exclusive: has(FLAG.exclusive),
    ...(has(FLAG.create) && { create: ownershipOf(given, DEFAULT_FILE_MODE) }),
  };
}

function ownershipOf({ owner = { uid: 0, gid: 0 }, mode }: WireAttributes, defaultMode: number): Ownership {
  return { ...owner, mode: (mode ?? defaultMode) & PERMISSIONS };
}

function changeOf({ size, owner, mode, times }: WireAttributes): AttributeChange {
  return {
    ...(size !== undefined && { sizeBytes: size }),
    ...owner,
    ...(mode !== undefined && { mode: mode & PERMISSIONS }),
    ...(times && { times: { accessed: new Date(times.accessed * 1000), modified: new Date(times.modified * 1000) } }),
  };
}

function wire({ uid, gid, mode, sizeBytes, accessed, modified }: Attributes): Buffer {
  const seconds = (date: Date) => Math.max(0, Math.floor(date.getTime() / 1000));
  const times = { accessed: seconds(accessed), modified: seconds(modified) };
  return attributes({ size: sizeBytes, owner: { uid, gid }, mode, times });
}

function attrs(id: Buffer, found: Attributes): Buffer {
  return packet(TYPE.attrs, id, wire(found));
}

/** Of statvfs(3): block and fragment size, blocks, free and available ones, the same of files, id, flags, longest name. */
function fileSystem(id: Buffer, { bsize, blocks, bfree, bavail, files, ffree }: StatsFs): Buffer {
  const values = [bsize, bsize, blocks, bfree, bavail, files, ffree, ffree, 0, 0, MAX_NAME_BYTES];
  return packet(TYPE.extendedReply, id, ...values.map(uint64));
}

function names(id: Buffer, entries: readonly Entry[]): Buffer {
  const parts = entries.flatMap(({ name, found }) => [
    bytes(name),
    bytes(found ? longName(name, found) : name),
    found ? wire(found) : attributes({}),
  ]);
  return packet(TYPE.name, id, uint32(entries.length), ...parts);
}

function status(id: Buffer, code: number, message: string): Buffer {
  return packet(TYPE.status, id, uint32(code), bytes(message), bytes('en'));
}

async function done(id: Buffer, work: Promise<void>): Promise<Buffer> {
  await work;
  return status(id, STATUS.ok, '');
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}

function statusOf(error: unknown): number {
  const code = codeOf(error);
  if (code === 'ENOENT' || code === 'ENOTDIR') return STATUS.noSuchFile;
  return code === 'EACCES' || code === 'EPERM' ? STATUS.permissionDenied : STATUS.failure;
}
