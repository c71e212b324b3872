// Re-owns a tree on threads of its own: tens of thousands of small blocking calls must not hold up the daemon.
import { availableParallelism } from 'node:os';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { AppError, asError } from '#src/lib/errors.ts';
import { atNormalPriority } from '#src/lib/priority.ts';
import type { OwnerShift } from './host.ts';
import { sameIdMap } from './id-map.ts';
import type { ShiftJob } from './shift-worker.ts';

/** Each thread costs some 50 ms to start; more than four do not make any file system faster. */
const THREADS = Math.min(4, availableParallelism());

export async function shiftTree(path: string, shift: OwnerShift, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  if (sameIdMap(shift.from, shift.to)) return;
  const jobs = Array.from({ length: THREADS }, (_none, part): ShiftJob => ({ path, shift, part, parts: THREADS }));
  const results = await Promise.allSettled(jobs.map((job) => runJob(job, signal)));
  const failed = results.find((result) => result.status === 'rejected');
  if (failed)
    throw new AppError('internal', `cannot re-own ${path}: ${String(failed.reason)}`, { cause: failed.reason });
}

async function runJob(job: ShiftJob, signal: AbortSignal): Promise<void> {
  // The same extension as this file: .ts from source, .js from the built package.
  const file = new URL(`./shift-worker${extname(fileURLToPath(import.meta.url))}`, import.meta.url);
  const worker = atNormalPriority(() => new Worker(file, { workerData: job }));
  const stop = (): void => void worker.terminate();
  signal.addEventListener('abort', stop, { once: true });
  try {
    await new Promise<void>((resolve, reject) => {
      let failure: Error | undefined;
      worker.on('error', (error) => {
        failure = asError(error);
      });
      worker.on('exit', (code) => (failure || code !== 0 ? reject(failure ?? asError(signal.reason)) : resolve()));
    });
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
