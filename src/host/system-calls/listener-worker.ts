// The thread that takes connections, and hands them on, until it is to end.
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { nextConnection } from './sockets.ts';

export interface ListenerJob {
  readonly listening: number;
  /** Readable when it is to end. */
  readonly end: number;
}

function takeConnections({ listening, end }: ListenerJob): void {
  for (;;) {
    const connection = nextConnection(listening, end);
    if (connection === undefined) return;
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has none
    parentPort?.postMessage(connection);
  }
}

if (!isMainThread) takeConnections(workerData as ListenerJob);
