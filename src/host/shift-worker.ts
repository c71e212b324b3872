// The thread that re-owns a tree. Several may share one: each does the inodes that are its own by number.
import { chmodSync, lchownSync, lstatSync, readdirSync, type Stats } from 'node:fs';
import { isMainThread, workerData } from 'node:worker_threads';
import type { OwnerShift } from './host.ts';
import { getXattr, listXattrs, setXattr } from './kernel.ts';
import { planShift, type ShiftPlan } from './shift-plan.ts';

export interface ShiftJob {
  readonly path: string;
  readonly shift: OwnerShift;
  /** This thread's number and how many there are. */
  readonly part: number;
  readonly parts: number;
}

const SLASH = Buffer.from('/');
const SET_ID_BITS = 0o6000;

function shiftedXattrs(path: Buffer, plan: ShiftPlan): readonly (readonly [string, Buffer])[] {
  return listXattrs(path).flatMap((name) => {
    if (name === 'security.capability') return [[name, plan.capability(getXattr(path, name))] as const];
    return name.startsWith('system.posix_acl_') ? [[name, plan.acl(getXattr(path, name))] as const] : [];
  });
}

/** chown(2) drops setuid and capabilities of files, so both are put back after it. */
function shiftOne(path: Buffer, status: Stats, plan: ShiftPlan): void {
  const xattrs = status.isSymbolicLink() ? [] : shiftedXattrs(path, plan);
  lchownSync(path, plan.uid(status.uid), plan.gid(status.gid));
  if (status.isFile() && (status.mode & SET_ID_BITS) !== 0) chmodSync(path, status.mode & 0o7777);
  for (const [name, value] of xattrs) setXattr(path, name, value);
}

function shiftAll({ path, shift, part, parts }: ShiftJob): void {
  const plan = planShift(shift);
  const linked = new Set<number>();
  const { dev } = lstatSync(path);
  const visit = (at: Buffer): void => {
    const status = lstatSync(at);
    if (status.dev !== dev) return; // something mounted in there is not ours
    if (status.ino % parts === part && !linked.has(status.ino)) {
      if (status.nlink > 1 && !status.isDirectory()) linked.add(status.ino);
      shiftOne(at, status, plan);
    }
    if (!status.isDirectory()) return;
    // Names are bytes and must stay the same bytes.
    for (const name of readdirSync(at, { encoding: 'buffer' })) visit(Buffer.concat([at, SLASH, name]));
  };
  visit(Buffer.from(path));
}

if (!isMainThread) shiftAll(workerData as ShiftJob);
