// The websockets of one operation: a secret for each, given to the client; who brings it gets that connection, once.
import { randomBytes } from 'node:crypto';
import type { WebSocket } from 'ws';
import { AppError } from '#src/lib/errors.ts';
import { sleep } from '#src/lib/wait.ts';

const CONNECT_LIMIT_MS = 5_000;

export class OperationSockets<Name extends string> {
  /** Name → secret: what the operation's metadata has as `fds`. */
  readonly fds: Readonly<Record<Name, string>>;
  readonly #sockets = new Map<Name, WebSocket>();
  readonly #waiting = new Map<Name, PromiseWithResolvers<WebSocket>>();

  constructor(names: readonly Name[]) {
    const secrets = names.map((name) => [name, randomBytes(32).toString('hex')] as const);
    this.fds = Object.fromEntries(secrets) as Record<Name, string>;
    for (const name of names) this.#waiting.set(name, Promise.withResolvers());
  }

  /** For OperationSpec. */
  readonly connect = (secret: string): ((socket: WebSocket) => void) | undefined => {
    const name = [...this.#waiting.keys()].find((known) => this.fds[known] === secret);
    if (name === undefined || this.#sockets.has(name)) return undefined;
    return (socket) => {
      if (this.#sockets.has(name)) {
        socket.close();
        return;
      }
      // Nobody listens yet: what the client sends waits in the kernel.
      socket.pause();
      this.#sockets.set(name, socket);
      this.#waiting.get(name)?.resolve(socket);
    };
  };

  /** The socket, now or when the client connects it. */
  socket(name: Name): Promise<WebSocket> {
    return this.#waiting.get(name)?.promise ?? Promise.reject(new AppError('internal', `no such socket: ${name}`));
  }

  /** Resolves when all of these are connected; AppError with LXD's text when that takes too long. */
  async connected(names: readonly Name[], signal: AbortSignal): Promise<void> {
    const timer = new AbortController();
    const limit = sleep(CONNECT_LIMIT_MS, AbortSignal.any([signal, timer.signal])).then(() => {
      throw new AppError('unavailable', 'Timed out waiting for websockets to connect');
    });
    try {
      await Promise.race([Promise.all(names.map((name) => this.socket(name))), limit]);
    } finally {
      limit.catch(() => undefined);
      timer.abort();
    }
  }

  /** Ends every connection: politely, or at once. */
  close({ now = false } = {}): void {
    for (const socket of this.#sockets.values()) {
      socket.resume();
      if (now) socket.terminate();
      else socket.close();
    }
  }
}
