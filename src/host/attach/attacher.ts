// The daemon's end of the attach server: started with the first process, gone some time after the last one.
import { type ChildProcess, fork, type ForkOptions } from 'node:child_process';
import { getCompileCacheDir } from 'node:module';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AppError, asError } from '#src/lib/errors.ts';
import { atNormalPriority } from '#src/lib/priority.ts';
import type { AttachRequest, ServerReport, ServerRequest } from './messages.ts';

const IDLE_MS = 120_000;
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
/** The server is to be small: it waits. */
const NODE_FLAGS = [
  '--disable-warning=ExperimentalWarning',
  '--max-semi-space-size=1',
  '--optimize-for-size',
  '--no-opt',
  '--no-maglev',
  '--no-sparkplug',
];
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
    // The same extension as this file: .ts from source, .js from the built package.
    const entry = new URL(`../../../bin/attach-server${extname(fileURLToPath(import.meta.url))}`, import.meta.url);
    const cache = getCompileCacheDir();
    const options: ForkOptions = {
      cwd: '/',
      execArgv: NODE_FLAGS,
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      // Signals of the daemon's terminal are not for it: it ends when the daemon does.
      detached: true,
      env: { PATH, UV_THREADPOOL_SIZE: THREADS, MALLOC_ARENA_MAX: '1', ...(cache && { NODE_COMPILE_CACHE: cache }) },
    };
    const server = atNormalPriority(() => fork(entry, [], options));
    server.on('message', (report) => this.#take(report as ServerReport));
    server.on('error', (error) => this.#lost(server, error));
    server.on('exit', () => this.#lost(server, new AppError('internal', 'the attach server ended')));
    server.unref();
    server.channel?.unref();
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
