// The attach server: a process beside the daemon that forks into containers, so that the daemon and its memory never do.
import { closeSync, openSync } from 'node:fs';
import { messageOf } from '#src/lib/errors.ts';
import { attach, keepDescriptors, killChild, ownChildren, reap } from './liblxc.ts';
import type { AttachRequest, ServerReport, ServerRequest, SignalRequest } from './messages.ts';

const SIGKILL = 9;

/** What of `process` the server uses. */
export interface ServerProcess {
  on(event: string, listener: (message: unknown) => void): unknown;
  send?(report: ServerReport): unknown;
  exit(code: number): never;
}

/** Serves until the daemon is gone, and then ends everything that it started: nothing in a container outlives its client. */
export function serveAttach(daemon: ServerProcess): void {
  keepDescriptors();
  const server = new AttachServer((message) => void daemon.send?.(message));
  daemon.on('SIGCHLD', () => server.reapAll());
  // Handled, not ignored, as Node or a shell does it: what is ignored would be ignored in the containers as well.
  for (const signal of ['SIGPIPE', 'SIGXFSZ', 'SIGINT', 'SIGQUIT', 'SIGHUP']) daemon.on(signal, () => undefined);
  daemon.on('disconnect', () => {
    server.killAll();
    daemon.exit(0);
  });
  daemon.on('message', (message) => {
    const request = message as ServerRequest;
    if (request.kind === 'attach') void server.start(request);
    else server.signal(request);
  });
}

class AttachServer {
  readonly #report: (message: ServerReport) => void;
  readonly #children = new Map<number, number>();
  /** Killed, and not reaped yet. */
  readonly #strays = new Set<number>();
  /** Attaches under way: their processes are not known yet. */
  #pending = 0;
  #hasFailed = false;

  constructor(report: (message: ServerReport) => void) {
    this.#report = report;
  }

  async start(request: AttachRequest): Promise<void> {
    this.#pending++;
    try {
      const pid = await attachWith(request);
      this.#children.set(request.id, pid);
      this.#report({ kind: 'attached', id: request.id, pid });
      this.reapAll(); // it may have ended before it was known here
    } catch (error) {
      this.#hasFailed = true;
      this.#report({ kind: 'failed', id: request.id, error: messageOf(error) });
    } finally {
      this.#pending--;
      this.#endStrays();
    }
  }

  /** liblxc gives up on what it has started when that is quicker than its own processes (without AppArmor, with intercepted calls). */
  #endStrays(): void {
    if (this.#pending > 0 || !this.#hasFailed) return;
    this.#hasFailed = false;
    const known = new Set(this.#children.values());
    for (const pid of ownChildren()) {
      if (known.has(pid)) continue;
      killChild(pid, SIGKILL);
      this.#strays.add(pid);
    }
    this.reapAll();
  }

  reapAll(): void {
    for (const pid of this.#strays) if (reap(pid) !== undefined) this.#strays.delete(pid);
    for (const [id, pid] of this.#children) {
      const status = reap(pid);
      if (status === undefined) continue;
      this.#children.delete(id);
      this.#report({ kind: 'exited', id, status });
    }
  }

  signal({ id, signal }: SignalRequest): void {
    const pid = this.#children.get(id);
    if (pid !== undefined) killChild(pid, signal);
  }

  killAll(): void {
    for (const pid of this.#children.values()) killChild(pid, SIGKILL);
  }
}

async function attachWith(request: AttachRequest): Promise<number> {
  const fds: number[] = [];
  try {
    for (const { path, flags } of request.streams) fds.push(openSync(path, flags));
    const [stdin = -1, stdout = -1, stderr = -1] = fds;
    return await attach(request, [stdin, stdout, stderr]);
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}
