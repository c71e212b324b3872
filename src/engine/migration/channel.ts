// One websocket of a migration: messages one at a time, and streams that end with an empty text frame.
import { Readable } from 'node:stream';
import type { RawData, WebSocket } from 'ws';
import { AppError } from '#src/lib/errors.ts';

/** Undefined: the end of a stream. */
type Item = Buffer | undefined;

/** Chunks that wait for their reader before the peer is made to wait. */
const MAX_WAITING = 64;
/** Less than the interval in which the API wants to hear of a peer. */
const PATIENCE_MS = 20_000;

export class Channel implements Disposable {
  readonly #socket: WebSocket;
  readonly #items: Item[] = [];
  readonly #patience: NodeJS.Timeout;
  #wake: (() => void) | undefined;
  #closed: Error | undefined;

  constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on('message', (data, isBinary) => this.#add(isBinary ? bytesOf(data) : undefined));
    socket.on('close', (code) => this.#end(new AppError('unavailable', `The migration channel was closed (${code})`)));
    socket.on('error', (error) => this.#end(error));
    // A peer that copies for a long time does not read, and so does not answer pings; it is there all the same.
    this.#patience = setInterval(() => socket.emit('pong', Buffer.alloc(0)), PATIENCE_MS).unref();
  }

  #add(item: Item): void {
    this.#items.push(item);
    if (this.#items.length >= MAX_WAITING) this.#socket.pause();
    this.#wake?.();
  }

  #end(error: Error): void {
    this.#closed ??= error;
    clearInterval(this.#patience);
    this.#wake?.();
  }

  /** The next chunk, or undefined for the end of a stream. Rejects when the peer is gone. */
  async receive(signal: AbortSignal): Promise<Item> {
    while (this.#items.length === 0) {
      if (this.#closed) throw this.#closed;
      await this.#arrival(signal);
    }
    const item = this.#items.shift();
    if (this.#items.length < MAX_WAITING / 2 && this.#socket.isPaused) this.#socket.resume();
    return item;
  }

  async #arrival(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onAbort = (): void => reject(signal.reason as Error);
    this.#wake = resolve;
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      await promise;
    } finally {
      this.#wake = undefined;
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** A message that is one frame. */
  async receiveMessage(signal: AbortSignal): Promise<Buffer> {
    const item = await this.receive(signal);
    if (item === undefined) throw new AppError('invalid', 'The peer sent no message');
    return item;
  }

  /** All chunks up to the end of the stream. */
  async *#chunks(signal: AbortSignal, count?: (bytes: number) => void): AsyncGenerator<Buffer> {
    for (let item = await this.receive(signal); item !== undefined; item = await this.receive(signal)) {
      count?.(item.length);
      yield item;
    }
  }

  /** `count` is told of each chunk. */
  stream(signal: AbortSignal, count?: (bytes: number) => void): Readable {
    return Readable.from(this.#chunks(signal, count), { objectMode: false });
  }

  /** A whole stream as one piece. AppError 'invalid' when it is longer than `limit`. */
  async receiveAll(limit: number, signal: AbortSignal): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let length = 0;
    for await (const chunk of this.#chunks(signal)) {
      length += chunk.length;
      if (length > limit) throw new AppError('invalid', 'The peer sent more than is allowed');
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  }

  /** Resolves when the bytes are on their way. */
  send(bytes: Buffer): Promise<void> {
    return this.#write(bytes, true);
  }

  endStream(): Promise<void> {
    return this.#write(Buffer.alloc(0), false);
  }

  #write(bytes: Buffer, binary: boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#socket.send(bytes, { binary, compress: false }, (error) => {
        if (error) reject(new AppError('unavailable', 'The migration channel was closed', { cause: error }));
        else resolve();
      });
    });
  }

  /** Sends the stream and its end. */
  async sendStream(source: AsyncIterable<unknown>): Promise<void> {
    for await (const chunk of source) await this.send(chunk as Buffer);
    await this.endStream();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#patience);
    this.#socket.close(1000);
    // A peer that does not answer the closing is cut off.
    setTimeout(() => this.#socket.terminate(), 5000).unref();
  }
}

function bytesOf(data: RawData): Buffer {
  if (Array.isArray(data)) return Buffer.concat(data);
  return Buffer.isBuffer(data) ? data : Buffer.from(data);
}
