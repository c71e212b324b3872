// Images of the engine: upload as a stream, look-up, aliases.
import type { Readable } from 'node:stream';
import { AppError, kindOf } from '#src/lib/errors.ts';
import { multipartBody } from './multipart.ts';
import type { CallOptions, Operations, PendingOperation } from './operations.ts';
import type { RawReply, Transport } from './transport.ts';
import type { Image, ImageAliasEntry, StringMap } from './wire.ts';

export type ImageContent =
  | { readonly kind: 'unified'; readonly tarball: Readable }
  | { readonly kind: 'split'; readonly metadata: Uint8Array | Readable; readonly rootfs: Readable };

export interface ImageUpload {
  readonly content: ImageContent;
  readonly filename: string;
  readonly public?: boolean;
  readonly properties?: StringMap;
}

export interface ImagePut {
  readonly public?: boolean;
  readonly auto_update?: boolean;
  readonly properties?: StringMap;
  readonly profiles?: readonly string[];
}

export interface ImagePublish {
  readonly source: { readonly type: 'instance' | 'snapshot'; readonly name: string };
  readonly public: boolean;
  readonly aliases: readonly { readonly name: string }[];
  readonly compression_algorithm?: string;
  readonly expires_at?: string;
  /** Absent: those of the instance's image. */
  readonly properties?: StringMap;
}

export class Images {
  readonly #transport: Transport;
  readonly #operations: Operations;

  constructor(transport: Transport, operations: Operations) {
    this.#transport = transport;
    this.#operations = operations;
  }

  async list(options: { readonly filter?: string; readonly signal?: AbortSignal } = {}): Promise<readonly Image[]> {
    const query = { recursion: 1, filter: options.filter };
    const { envelope } = await this.#transport.request('GET', '/1.0/images', { query, signal: options.signal });
    return (envelope.metadata ?? []) as readonly Image[];
  }

  async get(fingerprint: string, signal?: AbortSignal): Promise<Image> {
    const { envelope } = await this.#transport.request('GET', imagePath(fingerprint), { signal });
    return envelope.metadata as Image;
  }

  /**
   * Streams an image in; the operation's metadata has its `fingerprint`. When the content fails half-way the request
   * is broken off, so that the engine keeps nothing. The given streams are destroyed in any case.
   */
  async upload(upload: ImageUpload, options: CallOptions = {}): Promise<PendingOperation> {
    const { content } = upload;
    const sources = content.kind === 'unified' ? [content.tarball] : [content.rootfs];
    try {
      const { body, contentType } = encode(upload);
      sources.push(body);
      return await this.#operations.start('POST', '/1.0/images', {
        ...options,
        body,
        headers: { ...uploadHeaders(upload), 'Content-Type': contentType },
        idleTimeoutMs: 0,
      });
    } catch (error) {
      // The content's own failure says more than the request that broke because of it.
      throw sources.find(({ errored }) => errored !== null)?.errored ?? error;
    } finally {
      for (const source of sources) source.destroy();
    }
  }

  async remove(fingerprint: string, options: CallOptions = {}): Promise<PendingOperation> {
    return this.#operations.start('DELETE', imagePath(fingerprint), options);
  }

  async update(fingerprint: string, image: ImagePut, signal?: AbortSignal): Promise<void> {
    await this.#transport.request('PATCH', imagePath(fingerprint), { body: image, signal });
  }

  /** All of what can be changed. */
  async replace(fingerprint: string, image: ImagePut, signal?: AbortSignal): Promise<void> {
    await this.#transport.request('PUT', imagePath(fingerprint), { body: image, signal });
  }

  /** A file, or a form of two; the headers tell which. The caller reads or destroys it. */
  async export(fingerprint: string, signal?: AbortSignal): Promise<RawReply> {
    return this.#transport.rawReply(`${imagePath(fingerprint)}/export`, { signal, idleTimeoutMs: 0 });
  }

  /** Of a server elsewhere, which the engine asks by itself. */
  async importUrl(request: object, options: CallOptions = {}): Promise<PendingOperation> {
    return this.#operations.start('POST', '/1.0/images', { ...options, body: request });
  }

  /** With it another server may fetch a private image once. */
  async secret(fingerprint: string, options: CallOptions = {}): Promise<string> {
    const { operation } = await this.#operations.start('POST', `${imagePath(fingerprint)}/secret`, options);
    return String(operation.metadata?.['secret']);
  }

  /** From where it came; the operation's metadata tells whether there was a newer one. */
  async refresh(fingerprint: string, options: CallOptions = {}): Promise<PendingOperation> {
    return this.#operations.start('POST', `${imagePath(fingerprint)}/refresh`, options);
  }

  /** An image of an instance; the operation's metadata has its `fingerprint`. */
  async publish(request: ImagePublish, options: CallOptions = {}): Promise<PendingOperation> {
    return this.#operations.start('POST', '/1.0/images', { ...options, body: request });
  }

  async listAliases(signal?: AbortSignal): Promise<readonly ImageAliasEntry[]> {
    const { envelope } = await this.#transport.request('GET', '/1.0/images/aliases', {
      query: { recursion: 1 },
      signal,
    });
    return (envelope.metadata ?? []) as readonly ImageAliasEntry[];
  }

  /** Undefined when there is no such alias. */
  async findAlias(name: string, signal?: AbortSignal): Promise<ImageAliasEntry | undefined> {
    try {
      const { envelope } = await this.#transport.request('GET', aliasPath(name), { signal });
      return envelope.metadata as ImageAliasEntry;
    } catch (error) {
      if (kindOf(error) === 'not_found') return undefined;
      throw error;
    }
  }

  /** AppError 'conflict' when the name is taken. */
  async createAlias(
    alias: { readonly name: string; readonly target: string; readonly description?: string },
    signal?: AbortSignal,
  ): Promise<void> {
    const body = { description: '', type: 'container', ...alias };
    await this.#transport.request('POST', '/1.0/images/aliases', { body, signal });
  }

  async renameAlias(name: string, newName: string, signal?: AbortSignal): Promise<void> {
    await this.#transport.request('POST', aliasPath(name), { body: { name: newName }, signal });
  }

  async removeAlias(name: string, signal?: AbortSignal): Promise<void> {
    await this.#transport.request('DELETE', aliasPath(name), { signal });
  }
}

function imagePath(fingerprint: string): string {
  return `/1.0/images/${encodeURIComponent(fingerprint)}`;
}

function aliasPath(name: string): string {
  return `/1.0/images/aliases/${encodeURIComponent(name)}`;
}

function encode({ content, filename }: ImageUpload): { readonly body: Readable; readonly contentType: string } {
  if (content.kind === 'unified') return { body: content.tarball, contentType: 'application/octet-stream' };
  return multipartBody([
    { name: 'metadata', filename: 'metadata.tar', content: content.metadata },
    { name: 'rootfs', filename, content: content.rootfs },
  ]);
}

/** LXD reads one family of headers and Incus the other (section 7.2). */
function uploadHeaders(upload: ImageUpload): Record<string, string> {
  const headers: Record<string, string> = {};
  const set = (name: string, value: string): void => {
    headers[`X-LXD-${name}`] = value;
    headers[`X-Incus-${name}`] = value;
  };
  set('filename', headerText(upload.filename));
  set('public', upload.public === true ? '1' : '0');
  if (upload.properties) set('properties', new URLSearchParams(upload.properties).toString());
  return headers;
}

function headerText(value: string): string {
  if (/^[\x20-\x7e]*$/.test(value)) return value;
  throw new AppError('invalid', 'the file name of an image must be printable ASCII');
}
