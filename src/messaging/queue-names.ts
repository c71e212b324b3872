// Suffixes of fanout and reply queues: random, or stable names from oslo's queue manager (section 1.3).
import { mkdirSync, readFileSync, renameSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { basename } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { RabbitOptions } from './options.ts';
import { hexId } from './request.ts';

export interface QueueNames {
  /** What follows `reply_` or `<topic>_fanout_`. */
  next(): string;
}

const randomNames: QueueNames = { next: hexId };

export interface QueueNamesOptions {
  readonly rabbit: RabbitOptions;
  readonly programName: string;
  /** Where the counter lives; oslo's is /dev/shm. */
  readonly folder?: string;
}

export function queueNames({ rabbit, programName, folder = '/dev/shm' }: QueueNamesOptions): QueueNames {
  if (!rabbit.use_queue_manager) return randomNames;
  const host = rabbit.hostname || hostname();
  const program = rabbit.processname || basename(programName);
  if (/[/\0]/.test(host + program)) throw new AppError('invalid', 'hostname and processname must not contain a slash');
  const file = `${folder}/${host}_${program}_qmanager`;
  return { next: () => `${host}:${program}:${nextCount(file)}` };
}

/**
 * Counts up in a file `<pgrp>:<counter>:<start time>` that all processes of the group share, and starts at 1 again in a
 * new process group: so a restarted service finds its queues of before.
 */
function nextCount(file: string): number {
  const group = processGroup();
  return locked(`${file}.lock`, () => {
    const [pgrp, counter, startTime] = readCounter(file);
    const count = pgrp === group.pgrp && startTime === group.startTime ? counter + 1 : 1;
    writeFileSync(`${file}.new`, `${group.pgrp}:${count}:${group.startTime}`, { mode: 0o600 });
    renameSync(`${file}.new`, file);
    return count;
  });
}

function readCounter(file: string): readonly [number, number, number] {
  let text = '';
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  const match = /^(\d+):(\d+):(\d+)/.exec(text);
  return match ? [Number(match[1]), Number(match[2]), Number(match[3])] : [0, 0, 0];
}

function processGroup(): { pgrp: number; startTime: number } {
  const pgrp = Number(statFields('self')[2]);
  let leader: readonly string[];
  try {
    leader = statFields(String(pgrp));
  } catch {
    leader = statFields('self'); // the leader is gone
  }
  return { pgrp, startTime: Number(leader[19]) };
}

/** /proc/PID/stat after the command, which may hold spaces: field 3 (state) is number 0. */
function statFields(pid: string): readonly string[] {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return text.slice(text.lastIndexOf(')') + 2).split(' ');
}

const LOCK_TRIES = 200;
const LOCK_TRY_MS = 10;
const STALE_LOCK_MS = 10_000;

/** A directory as lock: held for microseconds, so one that is old belongs to a process that was killed in between. */
function locked<T>(path: string, work: () => T): T {
  for (let tries = 0; ; tries += 1) {
    try {
      mkdirSync(path);
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || tries >= LOCK_TRIES) throw error;
      breakStale(path);
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOCK_TRY_MS);
    }
  }
  try {
    return work();
  } finally {
    rmdirSync(path);
  }
}

function breakStale(path: string): void {
  try {
    if (Date.now() - statSync(path).mtimeMs > STALE_LOCK_MS) rmdirSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
