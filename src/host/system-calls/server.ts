// The system call server: a process beside the daemon that does for containers what their filters hold (security.syscalls.intercept.*), the
// calls of each in a thread of its own. What a hostile container makes of it, the daemon does not notice; it outlives the daemon as long as there
// is a container that asks, until the next daemon's takes its place.
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { messageOf } from '#src/lib/errors.ts';
import { close, finishReceiving, listen } from '../forwarding/calls.ts';
import { HANDED_FD } from '../helpers/helper-process.ts';
import { pipe } from '../kernel-descriptors.ts';
import type { ListenerJob } from './listener-worker.ts';

/** What the daemon is told. */
export type ServerReport = { readonly kind: 'listening' } | { readonly kind: 'failed'; readonly error: string };

/** Small: a thread waits, and answers. */
const LIMITS = { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 2 };
/** Of a call that was begun when another server took over; a container can make it last for ever. */
const LAST_CALL_MS = 5000;

/** Of `process`, what the server uses. */
export interface ServerProcess {
  readonly pid: number;
  readonly connected: boolean;
  on(event: 'disconnect' | 'SIGTERM', listener: () => void): unknown;
  send?(report: ServerReport): unknown;
  kill(pid: number, signal: string): unknown;
}

/** Serves at the socket that was handed over, until neither the daemon nor a container is there, or another server is (SIGTERM). */
export function serveSystemCalls(daemon: ServerProcess): void {
  const served = new Map<Worker, number>();
  const end = pipe();
  let isOver = false;

  const report = (message: ServerReport): void => {
    if (daemon.connected) daemon.send?.(message);
  };
  // not by exit(), which waits for threads that wait for a container
  const die = (): void => void daemon.kill(daemon.pid, 'SIGKILL');
  const dieUnused = (): void => {
    if (served.size === 0 && (isOver || !daemon.connected)) die();
  };
  const serve = (connection: number): void => {
    const thread = startThread('connection-worker', connection);
    served.set(thread, connection);
    // The monitor finds the connection closed, and makes another.
    thread.on('error', (error) => report({ kind: 'failed', error: messageOf(error) }));
    thread.on('exit', () => {
      served.delete(thread);
      close(connection);
      dieUnused();
    });
  };

  listen(HANDED_FD); // again, so that it is known for this process's
  const listener = startThread('listener-worker', { listening: HANDED_FD, end: end.reader });
  listener.on('message', serve);
  listener.on('exit', () => {
    isOver = true;
    for (const connection of served.values()) finishReceiving(connection);
    dieUnused();
  });
  daemon.on('disconnect', dieUnused);
  daemon.on('SIGTERM', () => {
    close(end.writer);
    setTimeout(die, LAST_CALL_MS);
  });
  report({ kind: 'listening' });
}

function startThread(name: string, workerData: number | ListenerJob): Worker {
  // The same extension as this file: .ts from source, .js from the built package.
  const file = new URL(`./${name}${extname(fileURLToPath(import.meta.url))}`, import.meta.url);
  // Descriptors that came from elsewhere are closed there as well; each would be warned of in a queue that nobody ever empties.
  return new Worker(file, { workerData, resourceLimits: LIMITS, trackUnmanagedFds: false });
}
