// The body of a split image upload: two file parts, written without ever holding the root file system in memory.
import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';

export interface FilePart {
  /** `metadata`, then `rootfs` (lxd-engine-contract section 2.8). */
  readonly name: 'metadata' | 'rootfs';
  readonly filename: string;
  readonly content: Uint8Array | Readable;
}

export interface MultipartBody {
  readonly contentType: string;
  readonly body: Readable;
}

export function multipartBody(parts: readonly FilePart[]): MultipartBody {
  const boundary = `lightervisor-${randomUUID()}`;
  return {
    contentType: `multipart/form-data; boundary=${boundary}`,
    body: Readable.from(encode(parts, boundary), { objectMode: false }),
  };
}

async function* encode(parts: readonly FilePart[], boundary: string): AsyncGenerator<Uint8Array> {
  for (const { name, filename, content } of parts) {
    yield Buffer.from(
      `--${boundary}\r\nContent-Disposition: form-data; name="${name}"; filename="${quoted(filename)}"\r\n` +
        'Content-Type: application/octet-stream\r\n\r\n',
    );
    if (content instanceof Uint8Array) yield content;
    else for await (const chunk of content) yield chunk as Uint8Array;
    yield Buffer.from('\r\n');
  }
  yield Buffer.from(`--${boundary}--\r\n`);
}

function quoted(filename: string): string {
  return filename.replaceAll(/[\r\n"\\]/g, '_');
}
