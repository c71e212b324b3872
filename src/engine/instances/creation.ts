// Makes an instance: from an image, empty, or as a copy. The row comes last; until then a note on disk tells what to undo.
import { rm } from 'node:fs/promises';
import type { IdMapRange, MountedRoot, NewVolume, StorageDriver } from '#drivers/storage/driver.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { EngineContext } from '../context.ts';
import { NEVER_USED, type ImageRecord, type InstanceRecord, type NewInstance } from '../db/records.ts';
import { NO_NOTES } from '../db/root-volumes.ts';
import type { InstanceRules, OperationHandle } from '../types.ts';
import { publishNics, removeDirectories } from './changes.ts';
import { validateExpanded } from './config-rules.ts';
import type { CopiedInstance, InstanceCopies, NotesOfCopy, Unowned } from './copy.ts';
import type { InstanceDevices } from './devices.ts';
import { filled, rootDisk, type RootDisk } from './disks.ts';
import { expander } from './expansion.ts';
import { instancePaths, type InstancePaths } from './instance-paths.ts';
import type { InstanceRoots } from './instance-roots.ts';
import { writeImageFiles } from './image-metadata-file.ts';
import {
  architectureOf,
  freshVolatile,
  inheritedConfig,
  inheritedDevices,
  inheritedProfiles,
  supported,
} from './inheritance.ts';
import { instanceTypeLimits } from './instance-type.ts';
import type { InstanceLifecycle } from './lifecycle.ts';
import type { Channels } from '../migration/connections.ts';
import type { InstanceArrival, MigrationSink } from './migration-sink.ts';
import { missingVolatile } from './nics.ts';
import type { NewInstanceRequest } from './requests.ts';
import { linkRoots } from './root-links.ts';
import { makeRootVolume } from './root-volume.ts';
import { noteTransition } from './transition.ts';

export interface CreationParts {
  readonly context: EngineContext;
  readonly rules: InstanceRules;
  readonly lifecycle: InstanceLifecycle;
  readonly devices: InstanceDevices;
  readonly copies: InstanceCopies;
  readonly sink: MigrationSink;
  readonly roots: InstanceRoots;
}

export type CreationSource =
  | { readonly type: 'image'; readonly image: ImageRecord }
  | { readonly type: 'none' }
  | ({ readonly type: 'copy' } & CopiedInstance)
  | MigratingSource;

export interface MigratingSource {
  readonly type: 'migration';
  readonly arrival: InstanceArrival;
  /** Fingerprint; empty: not known. */
  readonly baseImage: string;
  /** When they are connected. */
  readonly channels?: Channels;
}

export interface CreationPlan {
  readonly project: string;
  readonly name: string;
  readonly request: NewInstanceRequest;
  readonly source: CreationSource;
  /** Fills the empty root of source `none`, and the instance's directory. */
  readonly fill?: Fill;
  /** Instead: fills the empty volume of source `none` by what the storage driver itself takes. */
  readonly arrive?: Arrive;
  /** What users had written on the volume, and by name on its snapshots. */
  readonly notes?: NotesOfCopy;
}

export interface FillPlace extends MountedRoot {
  readonly paths: InstancePaths;
  /** Keeps what the root is now. */
  readonly snapshot: (name: string) => Promise<void>;
}

/** Returns the snapshots that it took. */
export type Fill = (place: FillPlace, signal: AbortSignal) => Promise<readonly Unowned[]>;

export interface ArrivePlace {
  readonly storage: StorageDriver;
  readonly volume: NewVolume;
  readonly paths: InstancePaths;
}

/** Returns the snapshots that came. */
export type Arrive = (place: ArrivePlace, signal: AbortSignal) => Promise<readonly Unowned[]>;

export interface Checked {
  readonly instance: NewInstance;
  readonly root: RootDisk;
  readonly storage: StorageDriver;
  /** Nobody else's until it is in the record of the instance. */
  readonly idMap: IdMapRange | null;
}

export class InstanceCreation {
  readonly #parts: CreationParts;

  constructor(parts: CreationParts) {
    this.#parts = parts;
  }

  /** The caller holds the lock of the name. */
  async create(plan: CreationPlan, operation: OperationHandle): Promise<InstanceRecord> {
    try {
      return await this.#create(plan, operation);
    } finally {
      this.#parts.lifecycle.ids.release(plan);
    }
  }

  async #create(plan: CreationPlan, operation: OperationHandle): Promise<InstanceRecord> {
    const { context } = this.#parts;
    const { signal } = operation;
    const checked = await this.#check(plan);
    const paths = instancePaths(context.paths, plan);
    await using revert = new Reverter(context.log);

    await noteTransition(context.host, paths, { kind: 'create', pool: checked.root.pool });
    revert.add('directory', () => removeDirectories(context, plan));
    const { snapshots, notes = plan.notes } = await makeRootVolume(
      this.#parts,
      { plan, ...checked },
      { revert, operation },
    );
    await this.#writeFiles(plan, paths, signal);
    // Again: others may have been made meanwhile.
    context.gate.newInstance(plan.project, checked.instance, plan.request.config);
    this.#checkDevices(checked.instance);
    const record = this.#insert(checked.instance, snapshots, notes);
    revert.commit();
    await linkRoots(context, record);
    await rm(paths.transition);
    await publishNics(context, record);
    context.events.lifecycle({
      action: 'instance-created',
      source: `/1.0/instances/${plan.name}`,
      project: plan.project,
      context: { 'storage-pool': checked.root.pool, type: 'container' },
    });
    return record;
  }

  #insert(instance: NewInstance, snapshots: readonly Unowned[], notes: CreationPlan['notes']): InstanceRecord {
    const { context, copies } = this.#parts;
    const { rootVolumes } = context.database;
    const rows = snapshots.map((snapshot) => copies.onPool(snapshot, instance));
    return context.database.transaction(() => {
      const record = context.database.instances.create(instance);
      for (const row of rows) {
        const { id, name } = context.database.snapshots.create({ ...row, instanceId: record.id });
        rootVolumes.set('snapshot', id, notes?.snapshots.get(name) ?? NO_NOTES);
      }
      rootVolumes.set('instance', record.id, notes?.own ?? NO_NOTES);
      return record;
    });
  }

  /** Everything that can be wrong with the request, in LXD's words, before anything is made. */
  async #check(plan: CreationPlan): Promise<Checked> {
    try {
      return await this.#checkParts(plan);
    } catch (cause) {
      const kind = cause instanceof AppError ? cause.kind : 'internal';
      throw new AppError(kind, `Failed creating instance record: ${messageOf(cause)}`, { cause });
    }
  }

  async #checkParts(plan: CreationPlan): Promise<Checked> {
    const { context, rules, lifecycle } = this.#parts;
    const { project, name, request } = plan;
    if (context.database.instances.find(project, name)) {
      throw new AppError('conflict', 'Add instance info to the database: This "instances" entry already exists');
    }
    const profiles = request.profiles ?? inheritedProfiles(plan.source);
    const own = { ...inheritedConfig(plan.source), ...instanceTypeLimits(request.instanceType), ...request.config };
    rules.validateConfig(own, { profile: false });
    const devices = { ...inheritedDevices(plan.source), ...request.devices };
    const draft = { project, profiles, config: own, devices };
    context.gate.newInstance(project, { ...draft, name }, request.config);
    const { root, storage, expanded } = this.#checkDevices(draft);
    checkBlock(plan.source, root);
    await this.#parts.devices.check(expanded.devices, 'Failed initialising instance: Failed add validation for');
    const { idMap, volatile } = await lifecycle.ids.claim(plan, expanded.config);
    const config = {
      ...own,
      ...missingVolatile(expanded.devices, own),
      ...freshVolatile(plan),
      ...volatile,
    };
    const now = new Date().toISOString();
    const instance: NewInstance = {
      ...draft,
      // When there is a row of it, it is filled.
      devices: filled(devices),
      config,
      name,
      uuid: config['volatile.uuid'],
      type: 'container',
      architecture: supported(architectureOf(plan)),
      ephemeral: request.ephemeral,
      stateful: keepsState(plan),
      description: request.description,
      pool: root.pool,
      createdAt: now,
      lastUsedAt: NEVER_USED,
    };
    return { instance, root, storage, idMap };
  }

  #checkDevices(draft: Pick<NewInstance, 'project' | 'profiles' | 'config' | 'devices'>) {
    const { context, rules } = this.#parts;
    const expanded = expander(context.database)(draft);
    return initialising(
      '',
      () => {
        rules.validateConfig(expanded.config, { profile: false });
        initialising('Invalid devices: ', () => {
          rules.validateDevices(expanded.devices, { profile: false, project: draft.project });
          validateExpanded(expanded.devices);
        });
        const root = initialising('Failed getting root disk: ', () => rootDisk(expanded.devices));
        const storage = initialising('Failed loading storage pool: ', () => context.pools.driver(root.pool));
        return { root, storage, expanded };
      },
      'Failed initialising instance: ',
    );
  }

  async #writeFiles(plan: CreationPlan, paths: InstancePaths, signal: AbortSignal): Promise<void> {
    const { context, copies } = this.#parts;
    const { source } = plan;
    if (source.type === 'image') {
      await writeImageFiles(context, { fingerprint: source.image.fingerprint, paths }, signal);
    }
    if (source.type === 'copy') await copies.copyFiles(source, plan, { stateful: keepsState(plan) });
  }
}

/** A stopped instance or a snapshot that has the state of its processes gives it on to a copy that is wanted with it. */
function keepsState({ source, request }: CreationPlan): boolean {
  return source.type === 'copy' && request.stateful && (source.snapshot ?? source.record).stateful;
}

function checkBlock({ type }: CreationSource, { block, fill }: RootDisk): void {
  if (block === undefined) return;
  if (type !== 'image' && type !== 'none') {
    throw new AppError('invalid', 'The root of an instance that is copied or moved cannot be a device of the host');
  }
  if (fill && type !== 'image')
    throw new AppError('invalid', '"lighter.block.fill" is for instances that are made from an image');
}

function initialising<T>(prefix: string, work: () => T, outer = ''): T {
  try {
    return work();
  } catch (cause) {
    const kind = cause instanceof AppError ? cause.kind : 'internal';
    throw new AppError(kind, `${outer}${prefix}${messageOf(cause)}`, { cause });
  }
}
