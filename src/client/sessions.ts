// Programs run in an instance, and its console: an operation whose data goes over websockets.
import type { Readable, Writable } from 'node:stream';
import { AppError } from '#src/lib/errors.ts';
import { aborted } from '#src/lib/wait.ts';
import { DataSocket } from './data-socket.ts';
import type { CallOptions, Operations, PendingOperation } from './operations.ts';
import type { Transport } from './transport.ts';
import type { Operation, StringMap } from './wire.ts';

export interface ExecRequest {
  readonly command: readonly string[];
  readonly environment: StringMap;
  readonly interactive: boolean;
  readonly width?: number;
  readonly height?: number;
  readonly user?: number;
  readonly group?: number;
  readonly cwd?: string;
}

export interface ExecStreams {
  /** Undefined: nothing to read. */
  readonly stdin: Readable | undefined;
  readonly stdout: Writable;
  readonly stderr: Writable;
}

/** What can be done to the program while it runs. */
export interface Control {
  resize(size: { readonly width: number; readonly height: number }): void;
  /** By number. */
  signal(signal: number): void;
}

export interface ConsoleStreams {
  readonly stdin: Readable;
  readonly stdout: Writable;
  /** Sees what is typed; undefined detaches. */
  readonly filter: (chunk: Buffer) => Buffer | undefined;
  /** Detaches as well. */
  readonly leave?: AbortSignal;
}

export class Sessions {
  readonly #transport: Transport;
  readonly #operations: Operations;

  constructor(transport: Transport, operations: Operations) {
    this.#transport = transport;
    this.#operations = operations;
  }

  /** Resolves with the exit code when the program has ended and all of its output was handed over. */
  async exec(
    path: string,
    request: ExecRequest,
    {
      streams,
      onStart,
      ...call
    }: CallOptions & { readonly streams: ExecStreams; readonly onStart: (control: Control) => Disposable },
  ): Promise<number> {
    const body = { ...request, 'wait-for-websocket': true, 'record-output': false };
    const pending = await this.#operations.start('POST', `${path}/exec`, { ...call, body });
    using control = this.#open(pending, 'control');
    using input = this.#open(pending, '0');
    using output = request.interactive ? undefined : this.#open(pending, '1');
    using errors = request.interactive ? undefined : this.#open(pending, '2');
    const sockets = [control, input, output, errors].filter((socket) => socket !== undefined);
    const received = Promise.all([
      (output ?? input).receive(streams.stdout),
      errors?.receive(streams.stderr) ?? Promise.resolve(),
    ]);
    await Promise.all(sockets.map((socket) => socket.opened));
    using _started = onStart(controlOf(control));
    const stop = streams.stdin ? input.send(streams.stdin) : undefined;
    if (!streams.stdin && !request.interactive) input.sendEnd();
    try {
      const ended = await pending.wait(call.signal);
      await received;
      return exitCode(ended);
    } finally {
      stop?.();
    }
  }

  /** Resolves when the console ended or the filter detached from it. */
  async console(
    path: string,
    size: { readonly width: number; readonly height: number },
    {
      streams,
      onStart,
      ...call
    }: CallOptions & { readonly streams: ConsoleStreams; readonly onStart: (control: Control) => Disposable },
  ): Promise<void> {
    const body = { ...size, type: 'console' };
    const pending = await this.#operations.start('POST', `${path}/console`, { ...call, body });
    using control = this.#open(pending, 'control');
    using data = this.#open(pending, '0');
    const received = data.receive(streams.stdout);
    await Promise.all([control.opened, data.opened]);
    using _started = onStart(controlOf(control));
    const detached = Promise.withResolvers<void>();
    if (streams.leave) void aborted(streams.leave).then(detached.resolve);
    const stop = data.send(streams.stdin, (chunk) => {
      const kept = streams.filter(chunk);
      if (kept === undefined) detached.resolve();
      return kept;
    });
    try {
      await Promise.race([received, detached.promise, rejection(call.signal)]);
    } finally {
      stop();
    }
    data.close();
    control.close();
    await pending.wait(call.signal);
  }

  #open({ operation }: PendingOperation, stream: string): DataSocket {
    const fds = (operation.metadata?.['fds'] ?? {}) as StringMap;
    const secret = fds[stream];
    if (secret === undefined) throw new AppError('internal', `The engine offers no stream "${stream}"`);
    const query = new URLSearchParams({ secret });
    const { endpoint, project } = this.#transport;
    if (project !== undefined) query.set('project', project);
    return new DataSocket(endpoint, `/1.0/operations/${operation.id}/websocket?${query.toString()}`);
  }
}

function controlOf(socket: DataSocket): Control {
  return {
    resize: ({ width, height }) =>
      socket.sendJson({ command: 'window-resize', args: { width: String(width), height: String(height) } }),
    signal: (signal) => socket.sendJson({ command: 'signal', signal }),
  };
}

function exitCode({ metadata }: Operation): number {
  const code = metadata?.['return'];
  if (typeof code !== 'number') throw new AppError('internal', 'The engine did not tell how the program ended');
  return code;
}

function rejection(signal: AbortSignal | undefined): Promise<never> {
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal?.reason as Error);
  signal?.addEventListener('abort', onAbort, { once: true });
  return promise;
}
