// Gives a stopped instance a new root, from an image or empty; its settings stay.
import { rm } from 'node:fs/promises';
import type { VolumeRef } from '#drivers/storage/driver.ts';
import { AppError } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { ImageRecord, InstanceRecord } from '../db/records.ts';
import { recordNewContent } from '../recovery/instance-records.ts';
import type { ConfigMap, OperationHandle } from '../types.ts';
import { refuseOnBlock } from './block-rules.ts';
import { rootDisk } from './disks.ts';
import { expander } from './expansion.ts';
import { writeImageFiles } from './image-metadata-file.ts';
import { hostName, instancePaths, lockKey, rootVolume, type InstanceKey } from './instance-paths.ts';
import { refuseLent } from './lent-roots.ts';
import type { InstanceLifecycle } from './lifecycle.ts';
import { operationSpec } from './operation-spec.ts';
import type { InstanceSource } from './requests.ts';
import { imageSelector } from './sources.ts';
import { forgetState } from './saved-states.ts';
import type { Supervisor } from './supervisor.ts';
import { endTransition, noteTransition, type RebuildTransition } from './transition.ts';

export interface RebuildParts {
  readonly context: EngineContext;
  readonly lifecycle: InstanceLifecycle;
  readonly supervisor: Supervisor;
}

/** Undefined: an empty root. */
type RebuildSource = ImageRecord | undefined;

export class InstanceRebuild {
  readonly #parts: RebuildParts;

  constructor(parts: RebuildParts) {
    this.#parts = parts;
  }

  /** An operation. */
  start(record: InstanceRecord, source: InstanceSource, project: string): string {
    const { context, supervisor } = this.#parts;
    const image = this.#imageOf(source, project);
    if (supervisor.status(record.id) !== 'Stopped') {
      throw new AppError('invalid', 'Instance must be stopped to be rebuilt');
    }
    const spec = operationSpec('Rebuilding instance', record.project, [record.name]);
    return context.operations.start(spec, (operation) => {
      const work = (): Promise<void> => {
        return this.#rebuild(context.database.instances.get(record.project, record.name), image, operation);
      };
      return context.locks.run(lockKey(record), work, operation.signal);
    });
  }

  #imageOf(source: InstanceSource, project: string): RebuildSource {
    if (source.type === 'none') return undefined;
    if (source.type === 'image') return this.#parts.context.images.resolve(project, imageSelector(source));
    throw new AppError('invalid', `Unknown source type ${source.type}`);
  }

  /** The new root is made beside the old one; the row is changed when it is complete, and then it takes the old one's place. */
  async #rebuild(record: InstanceRecord, image: RebuildSource, operation: OperationHandle): Promise<void> {
    const { context, supervisor } = this.#parts;
    if (supervisor.status(record.id) !== 'Stopped') {
      throw new AppError('invalid', 'Instance must be stopped to be rebuilt');
    }
    refuseLent(this.#parts, record);
    refuseOnBlock(record, 'rebuilt');
    await supervisor.sessions.dismiss(record.id);
    if (context.database.snapshots.names(record.id).length > 0) {
      throw new AppError('invalid', 'Cannot rebuild an instance with snapshots');
    }
    const paths = instancePaths(context.paths, record);
    const step = { kind: 'rebuild', pool: record.pool } as const;
    await noteTransition(context.host, paths, step);
    try {
      await this.#make(record, image, operation);
    } catch (error) {
      await endTransition(paths);
      throw error;
    }
    const config = rebuiltConfig(record.config, image);
    const done = { config, ...(image && { image: image.fingerprint }) };
    await noteTransition(context.host, paths, { ...step, done });
    await finish(context, record, done, operation.signal);
    await endTransition(paths);
    const { name, project } = record;
    context.events.lifecycle({ action: 'instance-updated', source: `/1.0/instances/${name}`, project });
  }

  async #make(record: InstanceRecord, image: RebuildSource, operation: OperationHandle): Promise<void> {
    const { context, lifecycle } = this.#parts;
    const { signal } = operation;
    const storage = context.pools.driver(record.pool);
    const { config, devices } = expander(context.database)(record);
    const { sizeBytes } = rootDisk(devices);
    const size = storage.info.quotas && sizeBytes !== undefined ? { sizeBytes } : {};
    const base = { ...newVolume(record), idMap: await lifecycle.idMap(record, config), ...size };
    if (!image) return storage.createVolume(base, signal);
    const { fingerprint } = image;
    const progress = (percent: number): void => {
      operation.setMetadata({ create_instance_from_image_unpack_progress: `Unpack: ${Math.round(percent)}%` });
    };
    const make = (): Promise<void> => storage.createVolume({ ...base, image: fingerprint }, signal);
    await context.images.withUnpacked({ fingerprint, pool: record.pool, progress }, make, signal);
  }
}

/** Names of instances have no dot. */
function newVolume(key: InstanceKey): VolumeRef {
  return { kind: 'container', name: `${hostName(key)}.rebuilt` };
}

type Done = NonNullable<RebuildTransition['done']>;

/** Idempotent: a later daemon may have to go on. */
async function finish(context: EngineContext, record: InstanceRecord, done: Done, signal: AbortSignal): Promise<void> {
  const storage = context.pools.driver(record.pool);
  const made = newVolume(record);
  context.database.instances.update(record.id, { config: done.config });
  if ((await storage.listVolumes('container', signal)).includes(made.name)) {
    await storage.deleteVolume(rootVolume(record), signal);
    await storage.renameVolume(made, hostName(record), signal);
  }
  const paths = instancePaths(context.paths, record);
  await forgetState(context, record);
  await rm(paths.templates, { recursive: true, force: true });
  await rm(paths.metadata, { force: true });
  if (done.image !== undefined) await writeImageFiles(context, { fingerprint: done.image, paths }, signal);
  await recordNewContent(context, record, signal);
}

/** What a daemon does that finds a rebuild half-done. */
export async function settleRebuild(
  context: EngineContext,
  record: InstanceRecord,
  { pool, done }: RebuildTransition,
  signal: AbortSignal,
): Promise<void> {
  if (done) return finish(context, record, done, signal);
  await context.pools.driver(pool).deleteVolume(newVolume(record), signal);
}

function rebuiltConfig(config: ConfigMap, image: RebuildSource): ConfigMap {
  const kept = Object.entries(config).filter(([key]) => !key.startsWith('image.') && key !== 'volatile.base_image');
  const properties = Object.entries(image?.properties ?? {}).map(([key, value]) => [`image.${key}`, value] as const);
  return Object.fromEntries([
    ...kept,
    ...properties,
    ...(image ? [['volatile.base_image', image.fingerprint] as const] : []),
    ...(image ? [['volatile.apply_template', 'create'] as const] : []),
  ]);
}
