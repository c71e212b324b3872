// The attach server: a process beside the daemon that forks into containers, so that the daemon and its memory never do.
import { closeSync, openSync } from 'node:fs';
import { messageOf } from '#src/lib/errors.ts';
import { attach, keepDescriptors, killChild, reap } from './liblxc.ts';
import type { AttachRequest, ServerReport, ServerRequest } from './messages.ts';

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
  const children = new Map<number, number>();
  const report = (message: ServerReport): void => void daemon.send?.(message);

  const reapAll = (): void => {
    for (const [id, pid] of children) {
      const status = reap(pid);
      if (status === undefined) continue;
      children.delete(id);
      report({ kind: 'exited', id, status });
    }
  };
  const start = async (request: AttachRequest): Promise<void> => {
    try {
      const pid = await attachWith(request);
      children.set(request.id, pid);
      report({ kind: 'attached', id: request.id, pid });
      reapAll(); // it may have ended before it was known here
    } catch (error) {
      report({ kind: 'failed', id: request.id, error: messageOf(error) });
    }
  };

  daemon.on('SIGCHLD', reapAll);
  // Handled, not ignored, as Node or a shell does it: what is ignored would be ignored in the containers as well.
  for (const signal of ['SIGPIPE', 'SIGXFSZ', 'SIGINT', 'SIGQUIT', 'SIGHUP']) daemon.on(signal, () => undefined);
  daemon.on('disconnect', () => {
    for (const pid of children.values()) killChild(pid, SIGKILL);
    daemon.exit(0);
  });
  daemon.on('message', (message) => {
    const request = message as ServerRequest;
    if (request.kind === 'attach') {
      void start(request);
      return;
    }
    const pid = children.get(request.id);
    if (pid !== undefined) killChild(pid, request.signal);
  });
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
