// The daemon's end of the attach server: started with the first process, gone some time after the last one.
import type { ChildProcess } from 'node:child_process';
import { AppError, asError } from '#src/lib/errors.ts';
import { startHelper } from '../helpers/helper-process.ts';
import type { AttachRequest, ServerReport, ServerRequest } from './messages.ts';

const IDLE_MS = 120_000;
/** liblxc's attach blocks a thread for some milliseconds each. */
const THREADS = '16';

/** A process in a container. */
export interface AttachedProcess {
  /** As this host sees it. */
  readonly pid: number;
  /** The status as wait(2) gives it; rejects when the attach server was killed. */
  readonly exited: Promise<number>;
  /** Does nothing once it has exited. */
  kill(signal: number): void;
}

interface Pending {
  readonly attached: PromiseWithResolvers<number>;
  readonly exited: PromiseWithResolvers<number>;
}

export class Attacher {
  #server: ChildProcess | undefined;
  #nextId = 1;
  #idle: NodeJS.Timeout | undefined;
  readonly #pending = new Map<number, Pending>();

  /** Resolves when the process is in the container; the paths of its streams are not needed any more then. */
  async attach(request: Omit<AttachRequest, 'kind' | 'id'>): Promise<AttachedProcess> {
    const id = this.#nextId++;
    const pending: Pending = { attached: Promise.withResolvers(), exited: Promise.withResolvers() };
    pending.exited.promise.catch(() => undefined); // whoever awaits it gets the error
    this.#pending.set(id, pending);
    try {
      this.#send({ kind: 'attach', id, ...request });
      const pid = await pending.attached.promise;
      const kill = (signal: number) => {
        if (this.#pending.has(id)) this.#send({ kind: 'signal', id, signal });
      };
      return { pid, exited: pending.exited.promise, kill };
    } catch (error) {
      this.#forget(id);
      throw error;
    }
  }

  #send(request: ServerRequest): void {
    clearTimeout(this.#idle);
    this.#server ??= this.#start();
    this.#server.send(request);
  }

  #start(): ChildProcess {
    const server = startHelper('attach-server', { environment: { UV_THREADPOOL_SIZE: THREADS } });
    server.on('message', (report) => this.#take(report as ServerReport));
    server.on('error', (error) => this.#lost(server, error));
    server.on('exit', () => this.#lost(server, new AppError('internal', 'the attach server ended')));
    return server;
  }

  #take(report: ServerReport): void {
    const pending = this.#pending.get(report.id);
    if (!pending) return;
    switch (report.kind) {
      case 'attached':
        pending.attached.resolve(report.pid);
        return;
      case 'failed':
        pending.attached.reject(new AppError('internal', report.error));
        return;
      case 'exited':
        pending.exited.resolve(report.status);
        this.#forget(report.id);
    }
  }

  #forget(id: number): void {
    this.#pending.delete(id);
    if (this.#pending.size > 0) return;
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => this.#dismiss(), IDLE_MS).unref();
  }

  #dismiss(): void {
    const server = this.#server;
    this.#server = undefined;
    if (server?.connected === true) server.disconnect();
  }

  /** Its children are gone as well, or cannot be waited for any more. */
  #lost(server: ChildProcess, error: unknown): void {
    if (this.#server !== server) return;
    this.#server = undefined;
    for (const { attached, exited } of this.#pending.values()) {
      attached.reject(asError(error));
      exited.reject(asError(error));
    }
    this.#pending.clear();
  }
}
