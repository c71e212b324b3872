// One stream of an operation (standard input, output, a terminal, its control): bytes in binary messages, and an
// empty text message or the end of the connection for the end (lxd-engine-contract section 2.2).
import type { Readable, Writable } from 'node:stream';
import type { RawData, WebSocket } from 'ws';
import { AppError } from '#src/lib/errors.ts';
import type { Endpoint } from './transport.ts';
import { openWebSocket } from './web-socket.ts';

const NOTHING = Buffer.alloc(0);

export class DataSocket implements Disposable {
  /** Rejects with AppError 'unavailable' when the engine does not take the connection. */
  readonly opened: Promise<void>;
  /** Never rejects: what went wrong is told by the operation. */
  readonly closed: Promise<void>;
  readonly #socket: WebSocket;

  constructor(endpoint: Endpoint, path: string) {
    this.#socket = openWebSocket(endpoint, path);
    const opened = Promise.withResolvers<void>();
    const closed = Promise.withResolvers<void>();
    this.opened = opened.promise;
    this.closed = closed.promise;
    this.#socket.once('open', () => opened.resolve());
    this.#socket.on('error', (cause) => {
      opened.reject(new AppError('unavailable', `The engine refused the connection: ${cause.message}`, { cause }));
    });
    this.#socket.once('close', () => closed.resolve());
    opened.promise.catch(() => {}); // who opens several hears of the first failure
  }

  /** Writes what comes to `sink`, as fast as it takes it. Resolves at the end of the stream; attach at once. */
  receive(sink: Writable): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#socket.on('message', (data: RawData, isBinary: boolean) => {
      if (!isBinary) return resolve();
      if (sink.write(bytesOf(data))) return;
      this.#socket.pause();
      sink.once('drain', () => this.#socket.resume());
    });
    this.#socket.once('close', () => resolve());
    return promise;
  }

  /**
   * Sends what `source` gives, and its end. `filter` sees each chunk first; undefined ends the sending.
   * The returned function stops it; the source stays usable.
   */
  send(source: Readable, filter: (chunk: Buffer) => Buffer | undefined = (chunk) => chunk): () => void {
    const onData = (data: Buffer | string): void => {
      const chunk = filter(Buffer.from(data as Buffer));
      if (chunk === undefined) return stop();
      source.pause();
      this.#socket.send(chunk, { binary: true }, (error) => (error ? stop() : source.resume()));
    };
    const onEnd = (): void => this.#socket.send(NOTHING, { binary: false }, () => {});
    const stop = (): void => {
      source.off('data', onData).off('end', onEnd).off('error', onEnd);
      source.pause();
    };
    source.on('data', onData).once('end', onEnd).once('error', onEnd);
    void this.closed.then(stop);
    return stop;
  }

  /** There is no input. */
  sendEnd(): void {
    this.#socket.send(NOTHING, { binary: false }, () => {});
  }

  sendJson(message: object): void {
    this.#socket.send(JSON.stringify(message), () => {});
  }

  close(): void {
    this.#socket.close();
  }

  [Symbol.dispose](): void {
    this.#socket.terminate();
  }
}

function bytesOf(data: RawData): Buffer {
  return Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data as Buffer);
}
