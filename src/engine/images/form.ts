// An image of two files as a multipart form, streamed.
import { randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';

export interface FormFile {
  readonly field: 'metadata' | 'rootfs';
  readonly path: string;
  readonly filename: string;
}

export interface ImageForm {
  readonly contentType: string;
  readonly body: AsyncIterable<Buffer>;
}

export function imageForm(files: readonly FormFile[]): ImageForm {
  const boundary = randomBytes(30).toString('hex');
  return { contentType: `multipart/form-data; boundary=${boundary}`, body: form(files, boundary) };
}

async function* form(files: readonly FormFile[], boundary: string): AsyncGenerator<Buffer> {
  for (const [index, { field, path, filename }] of files.entries()) {
    const head = [
      `${index === 0 ? '' : '\r\n'}--${boundary}`,
      `Content-Disposition: form-data; name="${field}"; filename="${filename}"`,
      'Content-Type: application/octet-stream',
    ];
    yield Buffer.from(`${head.join('\r\n')}\r\n\r\n`);
    yield* createReadStream(path) as AsyncIterable<Buffer>;
  }
  yield Buffer.from(`\r\n--${boundary}--\r\n`);
}
