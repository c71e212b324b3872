// The state of instances that do not run: their processes as CRIU has written them, in the directory `state` of the instance, where LXD
// has it. The row's `stateful` says that it counts. While it is being written it lies in `dumping`, and is the instance's state once it is
// whole and the container is gone: whichever daemon sees that first says so in the row.
import { rm } from 'node:fs/promises';
import type { RuntimeCheckpoint, RuntimeDriver } from '#drivers/runtime/driver.ts';
import { isServed } from '#drivers/devices/disk/served.ts';
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { expander } from './expansion.ts';
import { blockOf } from './instance-roots.ts';
import { instancePaths } from './instance-paths.ts';
import type { Life } from './supervisor.ts';

const COPY_LIMIT_MS = 3_600_000;

export interface SavedStateParts {
  readonly context: EngineContext;
  readonly runtime: RuntimeDriver;
}

export interface StartOptions {
  /** With the state that was kept when it was stopped. Without, what was kept is thrown away. */
  readonly stateful: boolean;
}

export class SavedStates {
  readonly #parts: SavedStateParts;

  constructor(parts: SavedStateParts) {
    this.#parts = parts;
  }

  /** AppError with the exact reason when the state of the instance cannot be kept here. `doing` begins it: "Unable to stop statefully". */
  async require(record: InstanceRecord, doing: string, signal: AbortSignal): Promise<void> {
    const { context, runtime } = this.#parts;
    const { devices } = expander(context.database)(record);
    if (blockOf(devices) !== undefined || Object.values(devices).some(isServed)) {
      throw new AppError('unsupported', `${doing}. The root of the instance, or a disk, is a device of the host`);
    }
    try {
      await runtime.checkCheckpoints(this.#criu(), signal);
    } catch (cause) {
      throw new AppError(kindOf(cause), `${doing}. ${messageOf(cause)}`, { cause });
    }
  }

  /** AppError 'invalid' when it is not there. Whether it works is seen when it is to. */
  async checkProgram(path: string): Promise<void> {
    if (path === '' || (await this.#parts.context.host.exists(path))) return;
    throw new AppError('invalid', `cannot set 'lighter.criu.path' to '${path}': there is no such program`);
  }

  /** Where lxc-checkpoint finds it: in PATH, unless the server's configuration names it. */
  #criu(): string {
    const path = this.#parts.context.config.text('lighter.criu.path');
    return path === '' ? 'criu' : path;
  }

  /** Ends the container; it has not, when this rejects. The state counts after adopt(). */
  async dump(record: InstanceRecord, life: Life): Promise<void> {
    const { context, runtime } = this.#parts;
    const { dumping } = instancePaths(context.paths, record);
    await rm(dumping, { recursive: true, force: true });
    try {
      await runtime.checkpoint(life.container, { directory: dumping, criu: this.#criu(), stop: true });
    } catch (error) {
      await rm(dumping, { recursive: true, force: true });
      throw error;
    }
  }

  /** Into a directory that is not there yet; the container runs on. */
  async dumpInto(directory: string, life: Life): Promise<void> {
    await this.#parts.runtime.checkpoint(life.container, { directory, criu: this.#criu(), stop: false });
  }

  /** The container does not run. What was written when it was stopped becomes its state; what was not finished goes. Idempotent. */
  async adopt(record: InstanceRecord): Promise<void> {
    const { context, runtime } = this.#parts;
    const { host, database } = context;
    const { dumping, state } = instancePaths(context.paths, record);
    if (await runtime.hasCheckpoint(dumping)) {
      // The row first: should the daemon be killed now, the next one finds what is whole and does the same again.
      database.instances.update(record.id, { stateful: true });
      await rm(state, { recursive: true, force: true });
      await host.rename(dumping, state);
      return;
    }
    await rm(dumping, { recursive: true, force: true });
  }

  /** For the end of a life, which nothing holds up. */
  async adoptOrLog(record: InstanceRecord): Promise<void> {
    try {
      await this.adopt(record);
    } catch (error) {
      this.#parts.context.log.error('the state of a stopped instance was not kept', { instance: record.name, error });
    }
  }

  /** For the runtime. AppError 'invalid' with LXD's text when there is none. */
  async checkpointOf(record: InstanceRecord): Promise<RuntimeCheckpoint> {
    const { host, paths } = this.#parts.context;
    const { state } = instancePaths(paths, record);
    if (!record.stateful || !(await host.exists(state))) {
      throw new AppError('invalid', 'Instance has no existing state to restore');
    }
    // Part of it is read by the processes themselves, some before and some after they have the ids of the instance. Nobody else gets there:
    // the directory of the instance is root's alone.
    await host.run(['chmod', '-R', 'a+rX', '--', state], { timeoutMs: COPY_LIMIT_MS });
    return { directory: state, criu: this.#criu() };
  }

  /** It runs, or its root is another one: what was kept is nobody's state any more. */
  async forget(record: InstanceRecord): Promise<void> {
    await forgetState(this.#parts.context, record);
  }
}

/** The row first: a state that does not count is only rubbish. */
export async function forgetState(
  { database, paths }: Pick<EngineContext, 'database' | 'paths'>,
  record: InstanceRecord,
): Promise<void> {
  database.instances.update(record.id, { stateful: false });
  await rm(instancePaths(paths, record).state, { recursive: true, force: true });
}

/** From one directory of an instance or a snapshot to another; what was there is replaced. Not atomic. */
export async function copyState({ host }: Pick<EngineContext, 'host'>, from: string, to: string): Promise<void> {
  await rm(to, { recursive: true, force: true });
  await host.run(['cp', '-a', '--reflink=auto', '--', from, to], { timeoutMs: COPY_LIMIT_MS });
}
