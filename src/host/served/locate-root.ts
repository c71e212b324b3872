// Where on a device its root file system lies. The tables are a tenant's: a thread of its own reads them, for the device may not answer.
import { closeSync, openSync } from 'node:fs';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { AppError, asError, messageOf } from '#src/lib/errors.ts';
import { atNormalPriority } from '#src/lib/priority.ts';
import { RawDisk } from '../disk-content/raw-disk.ts';
import { placeOfData, placeOfRoot } from '../disk-content/root-partition.ts';

export interface RootPlace {
  /** Bytes. */
  readonly start: number;
  readonly sizeBytes: number;
}

interface Task {
  readonly wanted: 'root' | 'data';
  readonly source: string;
  readonly sizeBytes: number;
}

type Answer = RootPlace | 'blank' | { readonly complaint: string };

const LIMIT_MS = 60_000;

/** AppError 'invalid', with what is there instead, when there is none. */
export async function locateRoot(source: string, sizeBytes: number): Promise<RootPlace> {
  const answer = await ask({ wanted: 'root', source, sizeBytes });
  if (answer !== 'blank' && !('complaint' in answer)) return answer;
  const reason = answer === 'blank' ? 'it is blank' : answer.complaint;
  throw new AppError('invalid', `"${source}" has no root: ${reason}`);
}

/** The same for a file system that is no root. 'blank': there is nothing at all on the device. */
export async function locateData(source: string, sizeBytes: number): Promise<RootPlace | 'blank'> {
  const answer = await ask({ wanted: 'data', source, sizeBytes });
  if (answer === 'blank' || !('complaint' in answer)) return answer;
  throw new AppError('invalid', `"${source}" cannot be served: ${answer.complaint}`);
}

async function ask(task: Task): Promise<Answer> {
  const file = new URL(`./locate-root${extname(fileURLToPath(import.meta.url))}`, import.meta.url);
  const worker = atNormalPriority(() => new Worker(file, { workerData: task }));
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const timer = setTimeout(() => reject(new AppError('unavailable', `"${task.source}" does not answer`)), LIMIT_MS);
  worker.on('message', resolve);
  worker.on('error', (error) => reject(asError(error)));
  worker.on('exit', () => reject(new AppError('internal', `nothing was found out about "${task.source}"`)));
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    void worker.terminate();
  }
}

function look({ wanted, source, sizeBytes }: Task): Answer {
  const fd = openSync(source, 'r');
  try {
    const disk = new RawDisk(fd, sizeBytes);
    return wanted === 'root' ? placeOfRoot(disk) : placeOfData(disk);
  } catch (error) {
    // A number on the device led out of what was read.
    if (error instanceof RangeError) return { complaint: 'its content is damaged' };
    if (error instanceof AppError) return { complaint: messageOf(error) };
    throw error;
  } finally {
    closeSync(fd);
  }
}

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has none
if (!isMainThread && isTask(workerData)) parentPort?.postMessage(look(workerData));

/** This file is loaded by other threads as well. */
function isTask(data: unknown): data is Task {
  return typeof data === 'object' && data !== null && 'source' in data && 'sizeBytes' in data;
}
