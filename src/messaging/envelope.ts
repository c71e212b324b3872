// How a payload is written into an AMQP message and read from it: envelope 2.0, JSON, compression (section 1.4).
import { brotliDecompressSync, deflateSync, unzipSync, zstdDecompressSync } from 'node:zlib';
import { AppError, messageOf } from '#src/lib/errors.ts';
import { isCompatible } from './version.ts';

const ENVELOPE_VERSION = '2.0';
/** RabbitMQ's own limit of a message; a compressed one must not unpack to more. */
const MAX_UNPACKED_BYTES = 128 * 1024 * 1024;

export type Payload = Readonly<Record<string, unknown>>;

export interface WireBody {
  readonly content: Buffer;
  readonly headers: Readonly<Record<string, string>>;
}

export interface EncodeOptions {
  /** kombu_compression: '' or 'gzip'. */
  readonly compression: string;
  /** false: format 1.0, the payload itself (the notification driver 'messaging'). */
  readonly enveloped?: boolean;
}

export function encode(payload: Payload, { compression, enveloped = true }: EncodeOptions): WireBody {
  const inner = JSON.stringify(payload);
  const text = enveloped ? JSON.stringify({ 'oslo.version': ENVELOPE_VERSION, 'oslo.message': inner }) : inner;
  const plain = Buffer.from(text);
  // kombu calls zlib's format gzip
  if (compression === 'gzip') return { content: deflateSync(plain), headers: { compression: 'application/x-gzip' } };
  return { content: plain, headers: {} };
}

/** What decode() needs of a delivered message. */
export interface EncodedMessage {
  readonly content: Buffer;
  readonly properties: {
    readonly contentType?: unknown;
    readonly contentEncoding?: unknown;
    readonly headers?: Readonly<Record<string, unknown>> | undefined;
  };
}

/** Rejects (AppError 'invalid' or 'unsupported') whatever is not a JSON object in UTF-8. */
export function decode({ content, properties }: EncodedMessage): Payload {
  checkContentType(properties);
  const outer = parse(unpack(content, properties.headers?.['compression']).toString('utf8'));
  const version = outer['oslo.version'];
  const message = outer['oslo.message'];
  if (version === undefined || message === undefined) return outer;
  if (typeof version !== 'string' || !isCompatible(ENVELOPE_VERSION, version)) {
    throw new AppError('unsupported', `message envelope version ${JSON.stringify(version)}`);
  }
  if (typeof message !== 'string') throw new AppError('invalid', 'message envelope without JSON text');
  return parse(message);
}

function checkContentType({ contentType, contentEncoding }: EncodedMessage['properties']): void {
  if (contentType !== undefined && contentType !== 'application/json') {
    throw new AppError('unsupported', `message of content type ${JSON.stringify(contentType)}`);
  }
  if (contentEncoding !== undefined && !(typeof contentEncoding === 'string' && /^utf-?8$/i.test(contentEncoding))) {
    throw new AppError('unsupported', `message of content encoding ${JSON.stringify(contentEncoding)}`);
  }
}

function parse(text: string): Payload {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    // the parser quotes the text, which may hold secrets
    throw new AppError('invalid', `message is not JSON (${error instanceof Error ? error.name : 'error'})`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new AppError('invalid', 'message is not a JSON object');
  }
  return value as Payload;
}

type Unpack = (content: Buffer, options: { maxOutputLength: number }) => Buffer;

/** By the names that kombu writes into the header `compression`. */
const unpackers: Readonly<Record<string, Unpack>> = {
  'application/x-gzip': unzipSync,
  gzip: unzipSync,
  zlib: unzipSync,
  'application/x-brotli': brotliDecompressSync,
  brotli: brotliDecompressSync,
  'application/zstd': zstdDecompressSync,
  zstd: zstdDecompressSync,
};

function unpack(content: Buffer, compression: unknown): Buffer {
  if (compression === undefined || compression === null || compression === '') return content;
  const unpacker = typeof compression === 'string' ? unpackers[compression] : undefined;
  if (!unpacker) {
    throw new AppError(
      'unsupported',
      `message compressed with ${JSON.stringify(compression)}: set kombu_compression = gzip`,
    );
  }
  try {
    return unpacker(content, { maxOutputLength: MAX_UNPACKED_BYTES });
  } catch (error) {
    throw new AppError('invalid', `message does not unpack: ${messageOf(error)}`, { cause: error });
  }
}
