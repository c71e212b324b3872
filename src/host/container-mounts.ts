// Mounts put into, and taken out of, the mount namespace of a running container. The container is hostile: every path in it is
// looked up with its own root as the root, and what is made there is made with its own rights.
import { closeSync, openSync } from 'node:fs';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { AppError, asError } from '#src/lib/errors.ts';
import { atNormalPriority } from '#src/lib/priority.ts';
import type { ContainerMountAnswer, ContainerMountJob, ContainerMountWork } from './container-mount-worker.ts';
import { KernelError } from './kernel.ts';
import type { GivenMount, TakenMount } from './mounts.ts';

/** Puts a copy of the mount at `from` on `target`, in the mount namespace of process `pid`. */
export async function giveMount({ from, target, kind, owner }: GivenMount, pid: number): Promise<void> {
  await inNamespace(pid, { what: 'attach', from, target, kind, ...owner });
}

/** Takes the topmost mount off `target`, there. Not mounted or absent is success. */
export async function takeMount({ target, removeFile, owner }: TakenMount, pid: number): Promise<void> {
  await inNamespace(pid, { what: 'detach', target, removeFile, ...owner });
}

/** A copy of what process `pid` has mounted at `target`, mounted nowhere: a descriptor, which the caller closes. */
export async function liftMount(target: string, pid: number): Promise<number> {
  const answer = await inNamespace(pid, { what: 'lift', target });
  if (answer === undefined) throw new AppError('internal', `no answer about the mount at ${target}`);
  return answer;
}

/** A thread of its own enters the namespace: a thread that shares its root directory with others may not. */
async function inNamespace(pid: number, work: ContainerMountWork): Promise<number | undefined> {
  const namespace = openSync(`/proc/${pid}/ns/mnt`, 'r');
  try {
    const answer = await runThread({ namespace, work });
    if (answer === undefined) return undefined;
    if ('fd' in answer) return answer.fd;
    const cause = new KernelError(answer.call, answer.errno);
    throw new AppError('internal', `cannot ${work.what} ${work.target} in the container: ${cause.message}`, { cause });
  } finally {
    closeSync(namespace);
  }
}

function runThread(job: ContainerMountJob): Promise<ContainerMountAnswer | undefined> {
  // The same extension as this file: .ts from source, .js from the built package.
  const file = new URL(`./container-mount-worker${extname(fileURLToPath(import.meta.url))}`, import.meta.url);
  const worker = atNormalPriority(() => new Worker(file, { workerData: job }));
  return new Promise((resolve, reject) => {
    let answer: ContainerMountAnswer | undefined;
    worker.on('message', (message: ContainerMountAnswer) => {
      answer = message;
    });
    worker.on('error', (error) => reject(asError(error)));
    worker.on('exit', () => resolve(answer));
  });
}
