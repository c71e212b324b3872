// The daemon's end of the system call server: started with the first container that needs it, and again when it ends.
import { AppError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { startHelper } from '../helpers/helper-process.ts';
import type { ServerReport } from './server.ts';
import type { FormerServer } from './sockets.ts';

const AGAIN_MS = 1000;

export class SystemCalls {
  /** Where the monitors of containers ask. */
  readonly path: string;
  readonly #log: Log;
  /** Held here as well: it goes on when the server ends. */
  #listening: number | undefined;
  /** Of a former daemon, until there is one of this. */
  #former: FormerServer | undefined;
  #server: Promise<void> | undefined;

  constructor(path: string, log: Log) {
    this.path = path;
    this.#log = log;
  }

  /** Resolves when it is served, and keeps it at that. AppError 'internal' when the server does not start. */
  serve(): Promise<void> {
    this.#server ??= this.#begin().catch((error: unknown) => {
      this.#server = undefined;
      throw error;
    });
    return this.#server;
  }

  async #begin(): Promise<void> {
    // Most daemons never need it.
    const { endServer, formerServer, listenAt } = await import('./sockets.ts');
    if (this.#listening === undefined) {
      this.#former = formerServer(this.path);
      this.#listening = this.#former?.listening ?? listenAt(this.path);
    }
    await this.#start(this.#listening);
    if (this.#former) endServer(this.#former);
    this.#former = undefined;
  }

  #start(listening: number): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const server = startHelper('system-call-server', { handed: listening });
    server.on('message', (report: ServerReport) => {
      if (report.kind === 'failed') this.#log.error('a system call of a container failed', { error: report.error });
      else resolve();
    });
    server.once('error', reject);
    server.once('exit', () => {
      reject(new AppError('internal', 'the system call server ended'));
      this.#server = undefined;
      setTimeout(() => void this.#again(), AGAIN_MS).unref();
    });
    return promise;
  }

  /** Meanwhile what is asked waits at the socket. */
  async #again(): Promise<void> {
    try {
      await this.serve();
    } catch (error) {
      this.#log.error('intercepted system calls are not served', { error });
    }
  }
}
