// multipart/form-data read as a stream: part after part, nothing held but one chunk.
import { Readable } from 'node:stream';
import { AppError } from './errors.ts';

export interface FormPart {
  readonly name: string;
  readonly filename: string;
  /** To be read to its end before the next part comes. */
  readonly content: Readable;
}

const MAX_HEADER_BYTES = 16 << 10;
const CRLF = Buffer.from('\r\n');
const HEADER_END = Buffer.from('\r\n\r\n');

/** The boundary of a content type; undefined when it is not a form. */
export function boundaryOf(contentType: string): string | undefined {
  if (!contentType.toLowerCase().startsWith('multipart/form-data')) return undefined;
  const match = /boundary=(?:"([^"]{1,70})"|([^\s;]{1,70}))/iu.exec(contentType);
  return match?.[1] ?? match?.[2];
}

/** A window over a stream: bytes that have come but are not used yet. */
class Window {
  readonly #chunks: AsyncIterator<Buffer>;
  buffer: Buffer = Buffer.alloc(0);

  constructor(source: AsyncIterable<Buffer>) {
    this.#chunks = source[Symbol.asyncIterator]();
  }

  /** Appends the next chunk. */
  async more(): Promise<void> {
    const { done, value } = await this.#chunks.next();
    if (done === true) throw new AppError('invalid', 'unexpected end of the form');
    this.buffer = this.buffer.length === 0 ? value : Buffer.concat([this.buffer, value]);
  }

  take(length: number): Buffer {
    const taken = this.buffer.subarray(0, length);
    this.buffer = this.buffer.subarray(length);
    return taken;
  }

  async until(mark: Buffer, limit: number): Promise<Buffer> {
    for (;;) {
      const at = this.buffer.indexOf(mark);
      if (at !== -1) {
        const taken = this.take(at);
        this.take(mark.length);
        return taken;
      }
      if (this.buffer.length > limit) throw new AppError('invalid', 'the header of a form part is too long');
      await this.more();
    }
  }

  async has(length: number): Promise<void> {
    while (this.buffer.length < length) await this.more();
  }
}

/** Parts in the order of the body. */
export async function* formParts(body: AsyncIterable<Buffer>, boundary: string): AsyncGenerator<FormPart> {
  const window = new Window(body);
  const delimiter = Buffer.from(`\r\n--${boundary}`);
  await window.until(delimiter.subarray(CRLF.length), MAX_HEADER_BYTES);
  for (;;) {
    await window.has(2);
    const next = window.take(2);
    if (next.toString() === '--') return;
    if (!next.equals(CRLF)) throw new AppError('invalid', 'malformed form: no line end after a boundary');
    const header = (await window.until(HEADER_END, MAX_HEADER_BYTES)).toString('utf8');
    const content = Readable.from(contentOf(window, delimiter), { objectMode: false });
    yield { name: parameterOf(header, 'name'), filename: parameterOf(header, 'filename'), content };
    if (!content.readableEnded) throw new AppError('internal', 'a form part was not read to its end');
  }
}

async function* contentOf(window: Window, delimiter: Buffer): AsyncGenerator<Buffer> {
  for (;;) {
    const at = window.buffer.indexOf(delimiter);
    if (at !== -1) {
      if (at > 0) yield window.take(at);
      window.take(delimiter.length);
      return;
    }
    // What may be the start of the delimiter stays until more has come.
    const safe = window.buffer.length - delimiter.length;
    if (safe > 0) yield window.take(safe);
    await window.more();
  }
}

function parameterOf(header: string, name: string): string {
  const disposition = /^content-disposition:(.*)$/imu.exec(header)?.[1] ?? '';
  const match = new RegExp(`(?:;|\\s)${name}=(?:"((?:[^"\\\\]|\\\\.)*)"|([^;\\s]+))`, 'iu').exec(disposition);
  return match?.[1]?.replaceAll(/\\(.)/gu, '$1') ?? match?.[2] ?? '';
}
