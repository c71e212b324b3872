// The root of a new instance: unpacked from an image, empty, copied, or received from a peer.
import { AppError } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { OperationHandle } from '../types.ts';
import type { NotesOfCopy, Unowned } from './copy.ts';
import type { Checked, CreationParts, CreationPlan, Fill, MigratingSource } from './creation.ts';
import { instancePaths, rootVolume } from './instance-paths.ts';

const UNDO_LIMIT_MS = 120_000;

interface Making {
  readonly revert: Reverter;
  readonly operation: OperationHandle;
}

interface Wanted extends Checked {
  readonly plan: CreationPlan;
}

export interface MadeRoot {
  /** That came with it. */
  readonly snapshots: readonly Unowned[];
  /** What its source tells of what users wrote on it; absent: nothing. */
  readonly notes?: NotesOfCopy;
}

export async function makeRootVolume(parts: CreationParts, wanted: Wanted, making: Making): Promise<MadeRoot> {
  const { copies } = parts;
  const { plan, storage, root, idMap } = wanted;
  const size = storage.info.quotas && root.sizeBytes !== undefined ? { sizeBytes: root.sizeBytes } : {};
  const volume = { ...rootVolume(plan), idMap, ...size };
  const { source } = plan;
  switch (source.type) {
    case 'none':
      await makeVolume(wanted, volume, making);
      return { snapshots: await fillEmpty(parts, wanted, volume, making.operation.signal) };
    case 'image':
      await fromImage(parts, { ...wanted, fingerprint: source.image.fingerprint }, volume, making);
      if (root.fill) await moveToBlock(parts, wanted, volume, making);
      return { snapshots: [] };
    case 'copy':
      await copies.copyRoot(source, { storage, volume }, making.operation.signal);
      undoable(wanted, volume, making);
      return { snapshots: copies.snapshotRows(source), notes: copies.notesOf(source) };
    case 'migration':
      return received(parts, { ...wanted, source }, volume, making);
  }
}

type Volume = Parameters<Checked['storage']['createVolume']>[0];

function undoable({ storage }: Checked, volume: Volume, { revert }: Making): void {
  revert.add('volume', () => storage.deleteVolume(volume, AbortSignal.timeout(UNDO_LIMIT_MS)));
}

async function makeVolume(wanted: Checked, volume: Volume, making: Making): Promise<void> {
  await wanted.storage.createVolume(volume, making.operation.signal);
  undoable(wanted, volume, making);
}

async function fillEmpty(
  parts: CreationParts,
  wanted: Wanted,
  volume: Volume,
  signal: AbortSignal,
): Promise<readonly Unowned[]> {
  const { plan, storage } = wanted;
  if (plan.arrive) return plan.arrive({ storage, volume, paths: instancePaths(parts.context.paths, plan) }, signal);
  return plan.fill ? fillRoot(parts, { ...wanted, fill: plan.fill }, volume, signal) : [];
}

async function fillRoot(
  { context }: CreationParts,
  { plan, storage, fill }: Wanted & { readonly fill: Fill },
  volume: Volume,
  signal: AbortSignal,
): Promise<readonly Unowned[]> {
  await using mounts = new Reverter(context.log); // never committed: the mount is for this alone
  const root = await storage.mountVolume(volume, volume.idMap, signal);
  mounts.add('mount', () => storage.unmountVolume(volume, AbortSignal.timeout(UNDO_LIMIT_MS)));
  const snapshot = (name: string): Promise<void> => storage.createSnapshot(volume, name, signal);
  return await fill({ ...root, paths: instancePaths(context.paths, plan), snapshot }, signal);
}

async function fromImage(
  { context }: CreationParts,
  wanted: Wanted & { readonly fingerprint: string },
  volume: Volume,
  making: Making,
): Promise<void> {
  const { operation } = making;
  const { fingerprint, root } = wanted;
  const progress = (percent: number): void => {
    const text = `Unpack: ${Math.round(percent)}%`;
    operation.setMetadata({ create_instance_from_image_unpack_progress: text });
  };
  const make = (): Promise<void> => makeVolume(wanted, { ...volume, image: fingerprint }, making);
  await context.images.withUnpacked({ fingerprint, pool: root.pool, progress }, make, operation.signal);
}

/** The image's clone in the pool is only what the device is filled from: an empty volume takes its place. */
async function moveToBlock(
  { context, roots }: CreationParts,
  { plan, storage, root: { block = '' } }: Wanted,
  volume: Volume,
  { operation }: Making,
): Promise<void> {
  const { signal } = operation;
  await using mounts = new Reverter(context.log); // never committed: the mount is for this alone
  const tree = await storage.mountVolume(volume, volume.idMap, signal);
  mounts.add('mount', () => storage.unmountVolume(volume, AbortSignal.timeout(UNDO_LIMIT_MS)));
  operation.setMetadata({ create_instance_from_image_unpack_progress: 'Filling the device' });
  await roots.fill(plan, { block, tree, idMap: volume.idMap }, signal);
  await storage.unmountVolume(volume, signal);
  await storage.deleteVolume(volume, signal);
  await storage.createVolume(volume, signal);
}

/** Begins with the image that both ends have, so that only what differs is sent. */
async function received(
  parts: CreationParts,
  wanted: Wanted & { readonly source: MigratingSource },
  volume: Volume,
  making: Making,
): Promise<MadeRoot> {
  const { plan, source, storage } = wanted;
  const { arrival, channels, baseImage } = source;
  if (!channels) throw new AppError('internal', 'The source of the migration is not connected');
  const known = baseImage !== '' && parts.context.database.images.find(plan.project, baseImage) !== undefined;
  if (known) await fromImage(parts, { ...wanted, fingerprint: baseImage }, volume, making);
  else await makeVolume(wanted, volume, making);
  const target = { key: plan, pool: wanted.root.pool, storage, volume, idMap: volume.idMap };
  return parts.sink.receiveNew(target, { arrival, channels }, making.operation);
}
