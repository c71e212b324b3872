// Knows which containers live, without asking: each has one watch at the runtime that ends with its life.
import type { RuntimeContainer, RuntimeDriver } from '#drivers/runtime/driver.ts';
import type { Log } from '#src/lib/log.ts';
import { sleep } from '#src/lib/wait.ts';
import { onNobodysBehalf } from '../events/requestor.ts';
import type { InstanceKey } from './instance-paths.ts';
import { InstanceSessions } from './sessions.ts';

export type InstanceStatus = 'Stopped' | 'Running' | 'Frozen';

/** One life of a container: from a start to its end, over reboots. */
export interface Life {
  /** Of the instance. */
  readonly id: number;
  /** An instance that runs keeps its name. */
  readonly key: InstanceKey;
  readonly container: RuntimeContainer;
  /** Resolves when the container is gone. */
  readonly ended: Promise<void>;
  status: Exclude<InstanceStatus, 'Stopped'>;
  /** Of its init, once it is known. */
  pid: number | undefined;
  /** Whether `ended` has resolved. */
  gone: boolean;
  /** Somebody who holds the instance's lock waits for the end and does what follows. */
  awaited: boolean;
  /** A clean shutdown is under way. */
  shuttingDown: boolean;
  /** limits.cpu; undefined: none. */
  cpuLimit: string | undefined;
  /** CPUs of the host that it has; undefined: all there were, or nobody knows. */
  cpus: readonly number[] | undefined;
}

export interface LifeHandlers {
  /** The container is gone and nobody awaited it. */
  ended(instanceId: number, life: Life): Promise<void>;
  rebooted(instanceId: number, life: Life): Promise<void>;
}

export interface NewLife {
  readonly container: RuntimeContainer;
  readonly status?: Life['status'];
  readonly cpuLimit: string | undefined;
  readonly cpus?: readonly number[] | undefined;
}

const RETRY_MS = 1000;

export class Supervisor {
  readonly sessions = new InstanceSessions();
  readonly #runtime: RuntimeDriver;
  readonly #log: Log;
  readonly #lives = new Map<number, Life>();
  readonly #stopping = new AbortController();
  #handlers: LifeHandlers | undefined;

  constructor(runtime: RuntimeDriver, log: Log) {
    this.#runtime = runtime;
    this.#log = log;
  }

  /** Once, before the first life. */
  handle(handlers: LifeHandlers): void {
    this.#handlers = handlers;
  }

  status(instanceId: number): InstanceStatus {
    return this.#lives.get(instanceId)?.status ?? 'Stopped';
  }

  life(instanceId: number): Life | undefined {
    return this.#lives.get(instanceId);
  }

  lives(): readonly Life[] {
    return [...this.#lives.values()];
  }

  attach({ id: instanceId, project, name }: InstanceKey & { readonly id: number }, made: NewLife): Life {
    const { container, status = 'Running', cpuLimit, cpus } = made;
    const { promise: ended, resolve } = Promise.withResolvers<void>();
    const key = { project, name };
    const life: Life = {
      id: instanceId,
      key,
      container,
      ended,
      status,
      cpuLimit,
      cpus,
      pid: undefined,
      gone: false,
      awaited: false,
      shuttingDown: false,
    };
    this.#lives.set(instanceId, life);
    // The request that starts a container is not the one that ends it.
    onNobodysBehalf(() => void this.#watch(instanceId, life, resolve));
    return life;
  }

  /** The container does not watch itself any more; its record is stopped. */
  detach(instanceId: number, life: Life): void {
    if (this.#lives.get(instanceId) === life) this.#lives.delete(instanceId);
  }

  /** Stops watching; containers run on. */
  stop(): void {
    this.#stopping.abort(new Error('the supervisor stops'));
  }

  async #watch(instanceId: number, life: Life, resolve: () => void): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      try {
        life.pid = await this.#runtime.initPid(life.container, signal);
        const exit = await this.#runtime.watch(life.container, signal);
        life.pid = undefined;
        void this.sessions.dismiss(instanceId); // theirs are the files of what has just ended
        if (exit === 'stopped') break;
        life.status = 'Running';
        this.#run(instanceId, 'reboot', this.#handlers?.rebooted(instanceId, life));
      } catch (error) {
        if (signal.aborted) return;
        this.#log.warn('cannot watch a container, trying again', { container: life.container.name, error });
        await sleep(RETRY_MS, signal).catch(() => undefined);
      }
    }
    if (signal.aborted) return;
    life.gone = true;
    resolve();
    if (!life.awaited) this.#run(instanceId, 'end', this.#handlers?.ended(instanceId, life));
  }

  #run(instanceId: number, what: string, work: Promise<void> | undefined): void {
    work?.catch((error: unknown) => {
      this.#log.error(`handling the ${what} of a container failed`, { instance: instanceId, error });
    });
  }
}
