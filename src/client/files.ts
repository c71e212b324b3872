// Files inside instances (lxd-engine-contract section 2.6).
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { kindOf } from '#src/lib/errors.ts';
import type { RawReply, Transport } from './transport.ts';

export type FileKind = 'file' | 'directory' | 'symlink';

export interface FileStatus {
  readonly kind: FileKind;
  /** Permission bits. */
  readonly mode: number;
  /** As seen inside. */
  readonly uid: number;
  readonly gid: number;
}

export interface FoundFile extends FileStatus {
  /** Of a file; the caller reads or destroys it. */
  readonly content: Readable;
  /** Names in a directory. */
  readonly entries: () => Promise<readonly string[]>;
  /** Of a symbolic link. */
  readonly target: () => Promise<string>;
}

export interface NewFile {
  readonly kind: FileKind;
  /** Absent: the engine's, or those of the file that is there. */
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Of a file, or where a symbolic link leads. */
  readonly content?: Readable | Buffer;
}

export class Files {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  async get(instance: string, path: string, signal?: AbortSignal): Promise<FoundFile> {
    const reply = await this.#transport.rawReply(filesPath(instance), { query: { path }, signal, idleTimeoutMs: 0 });
    return {
      ...statusOf(reply),
      content: reply.body,
      entries: async () =>
        (JSON.parse(await text(reply.body)) as { metadata: readonly string[] | null }).metadata ?? [],
      target: async () => (await text(reply.body)).trimEnd(),
    };
  }

  /** Undefined when there is nothing of that name. */
  async find(instance: string, path: string, signal?: AbortSignal): Promise<FoundFile | undefined> {
    try {
      return await this.get(instance, path, signal);
    } catch (error) {
      if (kindOf(error) === 'not_found') return undefined;
      throw error;
    }
  }

  async put(instance: string, path: string, { kind, mode, uid, gid, content }: NewFile, signal?: AbortSignal) {
    const fields = {
      type: kind,
      ...(kind === 'file' && { write: 'overwrite' }),
      ...(mode !== undefined && { mode: `0${mode.toString(8)}` }),
      ...(uid !== undefined && { uid: String(uid) }),
      ...(gid !== undefined && { gid: String(gid) }),
    };
    // LXD reads one family of headers and Incus the other.
    const headers = Object.entries(fields).flatMap(([name, value]) => [
      [`X-LXD-${name}`, value],
      [`X-Incus-${name}`, value],
    ]);
    await this.#transport.request('POST', filesPath(instance), {
      query: { path },
      headers: { ...Object.fromEntries(headers), 'Content-Type': 'application/octet-stream' },
      body: content ?? Buffer.alloc(0),
      signal,
      idleTimeoutMs: 0,
    });
  }

  async remove(instance: string, path: string, signal?: AbortSignal): Promise<void> {
    await this.#transport.request('DELETE', filesPath(instance), { query: { path }, signal });
  }
}

function filesPath(instance: string): string {
  return `/1.0/instances/${encodeURIComponent(instance)}/files`;
}

function statusOf({ headers }: RawReply): FileStatus {
  const field = (name: string): string => headers[`x-lxd-${name}`] ?? headers[`x-incus-${name}`] ?? '';
  const kind = field('type');
  return {
    kind: kind === 'directory' || kind === 'symlink' ? kind : 'file',
    mode: Number.parseInt(field('mode') || '0644', 8) & 0o7777,
    uid: Number(field('uid')),
    gid: Number(field('gid')),
  };
}
