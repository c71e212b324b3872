// Moves an instance: to another pool, another project, another name, in one operation.
import { rm } from 'node:fs/promises';
import { AppError } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { copyVolume } from '../storage/copy-volume.ts';
import { refuseOnBlock } from './block-rules.ts';
import type { InstanceChanges } from './changes.ts';
import type { InstanceCopies } from './copy.ts';
import { rootDisk } from './disks.ts';
import { expander } from './expansion.ts';
import { instancePaths, lockKey, rootVolume, type InstanceKey } from './instance-paths.ts';
import { refuseLent } from './lent-roots.ts';
import type { InstanceLifecycle } from './lifecycle.ts';
import { inOrder } from './lock-order.ts';
import { validateInstanceName } from './names.ts';
import { operationSpec } from './operation-spec.ts';
import { linkRoots } from './root-links.ts';
import { devicesOnPool } from './restore.ts';
import type { Supervisor } from './supervisor.ts';
import { endTransition, noteTransition } from './transition.ts';

export interface MoveParts {
  readonly context: EngineContext;
  readonly lifecycle: InstanceLifecycle;
  readonly supervisor: Supervisor;
  readonly changes: InstanceChanges;
  readonly copies: InstanceCopies;
}

export interface MoveRequest {
  /** Empty: as it is. */
  readonly name: string;
  readonly project: string;
  readonly pool: string;
  readonly instanceOnly: boolean;
}

export class InstanceMoves {
  readonly #parts: MoveParts;

  constructor(parts: MoveParts) {
    this.#parts = parts;
  }

  /** An operation; what is wrong with the request at first sight is thrown at once. */
  start(record: InstanceRecord, request: MoveRequest): string {
    const { context } = this.#parts;
    const to = { project: request.project || record.project, name: request.name || record.name };
    validateInstanceName(to.name);
    const isSame = to.project === record.project && to.name === record.name;
    if (request.pool === '' && isSame) throw new AppError('conflict', `Name "${to.name}" already in use`);
    if (request.project !== '') context.database.projects.get(to.project);
    this.#refuseTaken(record, to);
    const isMove = request.pool !== '' || request.project !== '';
    const spec = operationSpec(isMove ? 'Migrating instance' : 'Renaming instance', record.project, [record.name]);
    return context.operations.start(spec, ({ signal }) => {
      const work = () => this.#move(context.database.instances.get(record.project, record.name), to, request, signal);
      return inOrder(context.locks, [lockKey(record), lockKey(to)], work, signal);
    });
  }

  #refuseTaken(record: InstanceRecord, to: InstanceKey): void {
    const found = this.#parts.context.database.instances.find(to.project, to.name);
    if (found && found.id !== record.id) throw new AppError('conflict', `Name "${to.name}" already in use`);
  }

  async #move(record: InstanceRecord, to: InstanceKey, request: MoveRequest, signal: AbortSignal): Promise<void> {
    const { context, changes, supervisor } = this.#parts;
    this.#refuseTaken(record, to);
    if (supervisor.status(record.id) !== 'Stopped') throw new AppError('invalid', complaint(request));
    refuseLent(this.#parts, record);
    await supervisor.sessions.dismiss(record.id);
    const isMove = request.pool !== '' || request.project !== '';
    if (isMove && request.instanceOnly) await changes.removeSnapshots(record, signal);
    if (request.pool !== '' && request.pool !== record.pool) await this.#toPool(record, request.pool, signal);
    if (to.project === record.project && to.name === record.name) return;
    const current = context.database.instances.get(record.project, record.name);
    if (request.project !== '') context.gate.newInstance(to.project, { ...current, ...to }, current.config);
    await changes.rename(current, to, { template: !isMove }, signal);
  }

  /** The row decides which of the two volumes is the instance's; the other one goes. */
  async #toPool(record: InstanceRecord, pool: string, signal: AbortSignal): Promise<void> {
    const { context, lifecycle, copies } = this.#parts;
    refuseOnBlock(record, 'moved');
    const { database } = context;
    const storage = context.pools.driver(pool);
    const expanded = expander(database)(record);
    const idMap = await lifecycle.idMap(record, expanded.config);
    const { sizeBytes } = rootDisk(expanded.devices);
    const size = storage.info.quotas && sizeBytes !== undefined ? { sizeBytes } : {};
    const limit = context.pools.rsync(record.pool);
    const from = { storage: context.pools.driver(record.pool), volume: rootVolume(record), idMap, ...limit };
    const to = { storage, volume: { ...rootVolume(record), idMap, ...size } };
    const snapshots = database.snapshots.list(record.id);
    const paths = instancePaths(context.paths, record);
    await noteTransition(context.host, paths, { kind: 'move', pool: record.pool, to: pool });
    try {
      await copyVolume(context, { from, to, snapshots: snapshots.map(({ name }) => name) }, signal);
    } catch (error) {
      await endTransition(paths);
      throw error;
    }
    database.transaction(() => {
      database.instances.update(record.id, { pool, devices: devicesOnPool(context, record, pool) });
      for (const snapshot of snapshots) {
        database.snapshots.setDevices(snapshot.id, copies.onPool(snapshot, { project: record.project, pool }).devices);
      }
    });
    await linkRoots(context, record);
    await from.storage.deleteVolume(from.volume, signal);
    await rm(paths.transition);
  }
}

function complaint({ pool, project }: MoveRequest): string {
  if (pool !== '') return 'Instance must be stopped to move between pools statelessly';
  if (project !== '') return 'Instance must be stopped to move between projects statelessly';
  return 'Renaming of running instance not allowed';
}
