// Instances as the API sees them: what there is, and operations on them. Each operation holds the instance's lock.
import { availableParallelism } from 'node:os';
import type { RuntimeDriver } from '#drivers/runtime/driver.ts';
import { atATime } from '#src/lib/at-a-time.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord, ProfileRecord } from '../db/records.ts';
import { duringArrival } from '../migration/arrival.ts';
import { websocketSpec } from '../migration/connections.ts';
import type { InstanceRules, OperationHandle, OperationSpec } from '../types.ts';
import type { InstanceChanges } from './changes.ts';
import type { CopiedInstance, InstanceCopies } from './copy.ts';
import type { CreationPlan, CreationSource, InstanceCreation } from './creation.ts';
import { expander, type Expand, type Expanded } from './expansion.ts';
import { instancePaths, lockKey, type InstancePaths } from './instance-paths.ts';
import type { InstanceRoots } from './instance-roots.ts';
import type { InstanceLifecycle } from './lifecycle.ts';
import { inOrder } from './lock-order.ts';
import type { MigrationSink } from './migration-sink.ts';
import { clearConsoleLog, deleteLog, listLogs, logFile, readConsoleLog } from './logs.ts';
import { generateInstanceName, validateInstanceName } from './names.ts';
import { operationSpec } from './operation-spec.ts';
import type { InstancePower } from './power.ts';
import { remoteImage } from './remote-image.ts';
import { refreshInstance } from './refresh.ts';
import type { InstanceContent, NewInstanceRequest, StateAction, StateChange } from './requests.ts';
import type { InstanceSnapshots } from './snapshots.ts';
import type { CreationSources } from './sources.ts';
import { instanceState, instanceStates, type InstanceState } from './state.ts';
import type { InstanceStatus, Supervisor } from './supervisor.ts';

export interface InstanceParts {
  readonly context: EngineContext;
  readonly runtime: RuntimeDriver;
  readonly rules: InstanceRules;
  readonly supervisor: Supervisor;
  readonly creation: InstanceCreation;
  readonly changes: InstanceChanges;
  readonly power: InstancePower;
  readonly sources: CreationSources;
  readonly copies: InstanceCopies;
  readonly lifecycle: InstanceLifecycle;
  readonly snapshots: InstanceSnapshots;
  readonly sink: MigrationSink;
  readonly roots: InstanceRoots;
}

/** An instance with what is not in its row. */
export interface InstanceInfo {
  readonly record: InstanceRecord;
  readonly expanded: Expanded;
  readonly status: InstanceStatus;
  /** Of its init; undefined when it does not run, or is just starting. */
  readonly pid?: number | undefined;
}

const DESCRIPTIONS: Readonly<Record<StateAction, string>> = {
  start: 'Starting instance',
  stop: 'Stopping instance',
  restart: 'Restarting instance',
  freeze: 'Freezing instance',
  unfreeze: 'Unfreezing instance',
};

export class Instances {
  readonly #parts: InstanceParts;

  constructor(parts: InstanceParts) {
    this.#parts = parts;
  }

  names(project: string): readonly string[] {
    return this.#parts.context.database.instances.names(project);
  }

  /** Sorted by name; of all projects when none is named. */
  list(project?: string): readonly InstanceInfo[] {
    const expand = expander(this.#parts.context.database);
    return this.#parts.context.database.instances.list(project).map((record) => this.#info(record, expand));
  }

  /** AppError 'not_found' with LXD's text. */
  get(project: string, name: string): InstanceInfo {
    const { database } = this.#parts.context;
    return this.#info(database.instances.get(project, name), expander(database));
  }

  #info(record: InstanceRecord, expand: Expand): InstanceInfo {
    const life = this.#parts.supervisor.life(record.id);
    return { record, expanded: expand(record), status: life?.status ?? 'Stopped', pid: life?.pid };
  }

  #paths({ record }: InstanceInfo): InstancePaths {
    return instancePaths(this.#parts.context.paths, record);
  }

  state(info: InstanceInfo, signal: AbortSignal): Promise<InstanceState> {
    return instanceState(this.#parts, info, signal);
  }

  /** In the order of `infos`; cheaper than asking for each. */
  async states(
    infos: readonly InstanceInfo[],
    signal: AbortSignal,
  ): Promise<readonly { readonly info: InstanceInfo; readonly state: InstanceState }[]> {
    const states = await instanceStates(this.#parts, infos, signal);
    return infos.flatMap((info, index) => {
      const state = states[index];
      return state ? [{ info, state }] : [];
    });
  }

  /** The last bytes of the console over restarts; empty while nothing was printed, AppError when it never ran. */
  async consoleLog(info: InstanceInfo): Promise<Buffer> {
    const log = await readConsoleLog(this.#paths(info));
    this.#publish('instance-console-retrieved', info);
    return log;
  }

  async clearConsoleLog(info: InstanceInfo): Promise<void> {
    await clearConsoleLog(this.#paths(info));
    this.#publish('instance-console-reset', info);
  }

  logs(info: InstanceInfo): Promise<readonly string[]> {
    return listLogs(this.#parts.context.host, this.#paths(info));
  }

  /** The path of a log file. */
  async logFile(info: InstanceInfo, name: string): Promise<string> {
    const path = await logFile(this.#paths(info), name);
    this.#publish('instance-log-retrieved', info, { file: name });
    return path;
  }

  async deleteLog(info: InstanceInfo, name: string): Promise<void> {
    await deleteLog(this.#paths(info), name);
    this.#publish('instance-log-deleted', info, { file: name });
  }

  #publish(action: string, { record }: InstanceInfo, details?: Readonly<Record<string, unknown>>): void {
    const { name, project } = record;
    const source = `/1.0/instances/${name}`;
    this.#parts.context.events.lifecycle({ action, source, project, ...(details && { context: details }) });
  }

  /** Starts the operation; what is wrong with the request at first sight is thrown at once, as LXD does. */
  create(project: string, request: NewInstanceRequest): { readonly operation: string; readonly name: string } {
    const { context } = this.#parts;
    if (request.name !== '') validateInstanceName(request.name);
    const remote = remoteImage(request.source);
    const source = remote ? undefined : this.#parts.sources.find(project, request);
    for (const profile of request.profiles ?? []) this.#requireProfile(project, profile);
    const taken = (name: string) => context.database.instances.find(project, name) !== undefined;
    const name = request.name === '' ? generateInstanceName(taken) : request.name;
    const spec = creationSpec(project, name, source);
    const operation = context.operations.start(spec, async (handle) => {
      const image = remote && (await context.downloads.forInstance(project, remote, handle));
      const from = source ?? (image ? ({ type: 'image', image } as const) : ({ type: 'none' } as const));
      await this.#create({ project, name, request, source: from }, handle);
    });
    return { operation, name };
  }

  async #create(plan: CreationPlan, operation: OperationHandle): Promise<void> {
    const { context, power } = this.#parts;
    const { signal } = operation;
    const { source } = plan;
    const work = async () => {
      const target = context.database.instances.find(plan.project, plan.name);
      if (source.type === 'copy' && target && plan.request.source.refresh === true) {
        return this.#refresh(source, target, signal);
      }
      const record = await this.#make(plan, target, operation);
      if (record && plan.request.start) await power.start(record, signal, record);
    };
    const keys = source.type === 'copy' ? [lockKey(plan), lockKey(source.record)] : [lockKey(plan)];
    await inOrder(context.locks, keys, work, signal);
  }

  /** Undefined: an existing one was brought up to date. */
  async #make(
    plan: CreationPlan,
    target: InstanceRecord | undefined,
    operation: OperationHandle,
  ): Promise<InstanceRecord | undefined> {
    const { creation, sink, supervisor } = this.#parts;
    const { source } = plan;
    if (source.type !== 'migration') return creation.create(plan, operation);
    if (target && plan.request.source.refresh === true) {
      if (supervisor.status(target.id) !== 'Stopped')
        throw new AppError('invalid', 'Cannot refresh a running instance');
      await sink.refresh(target, source.arrival, operation);
      return undefined;
    }
    let record: InstanceRecord | undefined;
    await duringArrival(source.arrival, operation.signal, async (channels) => {
      record = await creation.create({ ...plan, source: { ...source, channels } }, operation);
    });
    return record;
  }

  async #refresh(copied: CopiedInstance, target: InstanceRecord, signal: AbortSignal): Promise<void> {
    if (this.#parts.supervisor.status(target.id) !== 'Stopped') {
      throw new AppError('invalid', 'Cannot refresh a running instance');
    }
    await refreshInstance(this.#parts, { copied, target }, signal);
  }

  #requireProfile(project: string, profile: string): void {
    if (this.#parts.context.database.profiles.find(project, profile)) return;
    throw new AppError('internal', `Requested profile "${profile}" doesn't exist`);
  }

  /** PUT /state. */
  changeState({ record }: InstanceInfo, change: StateChange): string {
    const { context, power } = this.#parts;
    return context.operations.start(
      operationSpec(DESCRIPTIONS[change.action], record.project, [record.name]),
      ({ signal }) => {
        return power.change(record, change, signal);
      },
    );
  }

  /** PUT /instances: all that the action applies to; side by side. */
  changeAll(project: string, change: StateChange): string {
    const { context, power } = this.#parts;
    const chosen = this.list(project).filter(({ status }) => applies(change.action, status));
    const names = chosen.map(({ record }) => record.name);
    return context.operations.start(
      operationSpec(DESCRIPTIONS[change.action], project, names, ['instances']),
      async ({ signal }) => {
        const failures: string[] = [];
        await atATime(2 * availableParallelism(), chosen, async ({ record }) => {
          try {
            await power.change(record, change, signal);
          } catch (error) {
            failures.push(`${record.name}: ${messageOf(error)}`);
          }
        });
        if (failures.length > 0)
          throw new AppError('internal', `Failed to update some instances: ${failures.join(', ')}`);
      },
    );
  }

  /** PUT: an operation. `edit` gets the record as it is under the lock. */
  replace({ record }: InstanceInfo, content: InstanceContent): string {
    const { context } = this.#parts;
    return context.operations.start(operationSpec('Updating instance', record.project, [record.name]), ({ signal }) => {
      return this.edit({ record }, () => content, signal);
    });
  }

  /** PATCH: done when it resolves. */
  async edit(
    { record }: Pick<InstanceInfo, 'record'>,
    edit: (current: InstanceRecord) => InstanceContent,
    signal: AbortSignal,
  ): Promise<void> {
    const { context, changes } = this.#parts;
    await this.#locked(record, signal, (current) => {
      const content = edit(current);
      for (const profile of content.profiles) context.database.profiles.get(current.project, profile);
      return changes.update(current, content, signal);
    });
    context.log.debug('instance updated', { instance: record.name });
  }

  remove(info: InstanceInfo): string {
    const { context, changes, supervisor } = this.#parts;
    const { record } = info;
    if (info.status !== 'Stopped') throw new AppError('invalid', 'Instance is running');
    return context.operations.start(operationSpec('Deleting instance', record.project, [record.name]), ({ signal }) => {
      return this.#locked(record, signal, async (current) => {
        if (supervisor.status(current.id) !== 'Stopped') throw new AppError('invalid', 'Instance is running');
        await changes.remove(current, signal);
      });
    });
  }

  /** A changed profile: what running instances can take they are given at once. */
  async profileChanged(former: ProfileRecord, signal: AbortSignal): Promise<void> {
    const failures: string[] = [];
    for (const record of this.#parts.context.database.instances.usingProfile(former.project, former.name)) {
      try {
        await this.#locked(record, signal, (current) => this.#parts.changes.profileChanged(current, former, signal));
      } catch (error) {
        failures.push(` - Project: ${record.project}, Instance: ${record.name}: ${messageOf(error)}`);
      }
    }
    if (failures.length === 0) return;
    const text = 'The following instances failed to update (profile change still saved):';
    throw new AppError('internal', `${text}\n${failures.join('\n')}`);
  }

  async #locked(
    key: InstanceRecord,
    signal: AbortSignal,
    work: (record: InstanceRecord) => Promise<void>,
  ): Promise<void> {
    const { locks, database } = this.#parts.context;
    await locks.run(lockKey(key), () => work(database.instances.get(key.project, key.name)), signal);
  }
}

/** A peer that pushes an instance here connects to the operation. */
function creationSpec(project: string, name: string, source: CreationSource | undefined): OperationSpec {
  const names = source?.type === 'copy' ? [name, source.record.name] : [name];
  const task = operationSpec('Creating instance', project, names);
  const expected = source?.type === 'migration' ? source.arrival.expected : undefined;
  return expected ? websocketSpec(task, expected) : task;
}

function applies(action: StateAction, status: InstanceStatus): boolean {
  switch (action) {
    case 'start':
      return status === 'Stopped';
    case 'unfreeze':
      return status === 'Frozen';
    case 'freeze':
      return status === 'Running';
    default:
      return status !== 'Stopped';
  }
}
