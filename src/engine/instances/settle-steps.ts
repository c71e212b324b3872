// What a daemon does at its start about a step on an existing instance in which another was killed: undone or finished.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { instancePaths, rootVolume } from './instance-paths.ts';
import { eraseInstance } from './changes.ts';
import { settleRebuild } from './rebuild.ts';
import { restoreRecord } from './restore.ts';
import { moveSnapshotFiles } from './snapshots.ts';
import type { MoveTransition, SnapshotTransition, Transition } from './transition.ts';

export async function settleStep(
  context: EngineContext,
  record: InstanceRecord,
  step: Transition,
  signal: AbortSignal,
): Promise<void> {
  switch (step.kind) {
    case 'create':
    case 'rename':
    case 'still':
      return;
    case 'delete':
      return eraseInstance(context, record, signal);
    case 'move':
      return settleMove(context, record, step, signal);
    case 'rebuild':
      return settleRebuild(context, record, step, signal);
    default:
      return settleSnapshot(context, record, step, signal);
  }
}

/** Where the row already says what was wanted, the rest follows; else what was begun is taken back. */
async function settleSnapshot(
  context: EngineContext,
  record: InstanceRecord,
  step: SnapshotTransition,
  signal: AbortSignal,
): Promise<void> {
  const row = context.database.snapshots.find(record.id, step.snapshot);
  switch (step.kind) {
    case 'snapshot':
      if (!row) await removeSnapshot(context, record, step, signal);
      return;
    case 'snapshot-delete':
      await removeSnapshot(context, record, step, signal);
      if (row) context.database.snapshots.delete(row.id);
      return;
    case 'snapshot-rename':
      return settleRename(context, record, { ...step, renamed: row !== undefined }, signal);
    case 'restore':
      if (!row) return;
      await context.pools.driver(step.pool).restoreSnapshot(rootVolume(record), step.snapshot, signal);
      return restoreRecord(context, { record, snapshot: row, stateful: step.stateful }, signal);
  }
}

async function removeSnapshot(
  context: EngineContext,
  record: InstanceRecord,
  { pool, snapshot }: SnapshotTransition,
  signal: AbortSignal,
): Promise<void> {
  await context.pools.driver(pool).deleteSnapshot(rootVolume(record), snapshot, signal);
  await rm(join(instancePaths(context.paths, record).snapshots, snapshot), { recursive: true, force: true });
}

async function settleRename(
  context: EngineContext,
  record: InstanceRecord,
  { pool, snapshot, from = '', renamed }: SnapshotTransition & { readonly renamed: boolean },
  signal: AbortSignal,
): Promise<void> {
  if (renamed) return moveSnapshotFiles(instancePaths(context.paths, record).snapshots, from, snapshot);
  const storage = context.pools.driver(pool);
  const volume = rootVolume(record);
  const made = await storage.listSnapshots(volume, signal);
  if (made.includes(snapshot)) await storage.renameSnapshot({ volume, snapshot, newName: from }, signal);
}

/** The volume on the pool that the row does not name goes. */
async function settleMove(
  context: EngineContext,
  record: InstanceRecord,
  { pool, to }: MoveTransition,
  signal: AbortSignal,
): Promise<void> {
  const other = record.pool === to ? pool : to;
  await context.pools.driver(other).deleteVolume(rootVolume(record), signal);
}
