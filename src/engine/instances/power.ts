// State changes of instances as clients ask for them, and what follows when a container ends or reboots by itself.
import type { RuntimeDriver } from '#drivers/runtime/driver.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import type { InstanceChanges } from './changes.ts';
import { lockKey } from './instance-paths.ts';
import type { InstanceLifecycle, ShutDownOptions } from './lifecycle.ts';
import type { StateChange } from './requests.ts';
import type { SavedStates, StartOptions } from './saved-states.ts';
import { silence, thaw } from './silence.ts';
import type { Life, LifeHandlers, Supervisor } from './supervisor.ts';
import { forgetStartAgain, startsAgain, whileStopped } from './while-stopped.ts';

export interface PowerParts {
  readonly context: EngineContext;
  readonly runtime: RuntimeDriver;
  readonly supervisor: Supervisor;
  readonly lifecycle: InstanceLifecycle;
  readonly changes: InstanceChanges;
  readonly states: SavedStates;
}

const REMOVE_LIMIT_MS = 300_000;

export class InstancePower implements LifeHandlers {
  readonly #parts: PowerParts;

  constructor(parts: PowerParts) {
    this.#parts = parts;
  }

  /** One operation, one lock. AppError 'invalid' with LXD's text when the instance is not in the state for it. */
  async change(key: InstanceRecord, change: StateChange, signal: AbortSignal): Promise<void> {
    const { action, stateful } = change;
    if (stateful && action !== 'start' && action !== 'stop')
      throw new AppError('invalid', `The action "${action}" knows no state`);
    if (await this.#overtake(key, change)) return;
    await this.#locked(key, signal, (record) => {
      switch (action) {
        case 'start':
          return this.start(record, signal, { stateful });
        case 'stop':
          return stateful ? this.#suspend(record, signal) : this.stop(record, change, signal);
        case 'restart':
          return this.#restart(record, change, signal);
        case 'freeze':
          return this.#freeze(record, signal);
        case 'unfreeze':
          return this.#unfreeze(record, signal);
      }
    });
  }

  /** A forced stop does not wait for a clean shutdown that is under way: it ends it. */
  async #overtake({ id }: InstanceRecord, change: StateChange): Promise<boolean> {
    const { action, force, timeoutSeconds, stateful } = change;
    const life = this.#parts.supervisor.life(id);
    if (action !== 'stop' || stateful || !(force || timeoutSeconds === 0) || life?.shuttingDown !== true) return false;
    await this.#parts.runtime.kill(life.container, AbortSignal.timeout(REMOVE_LIMIT_MS));
    return true;
  }

  async #locked(
    key: InstanceRecord,
    signal: AbortSignal,
    work: (record: InstanceRecord) => Promise<void>,
  ): Promise<void> {
    const { locks, database } = this.#parts.context;
    await locks.run(lockKey(key), () => work(database.instances.get(key.project, key.name)), signal);
  }

  /** By the holder of the lock. */
  async start(record: InstanceRecord, signal: AbortSignal, options: StartOptions = { stateful: false }): Promise<void> {
    const { supervisor, lifecycle } = this.#parts;
    if (supervisor.status(record.id) !== 'Stopped') throw new AppError('invalid', 'The instance is already running');
    await supervisor.sessions.dismiss(record.id);
    await lifecycle.start(record, signal, options);
    this.#publish('instance-started', record);
  }

  async #suspend(record: InstanceRecord, signal: AbortSignal): Promise<void> {
    const { lifecycle, states } = this.#parts;
    const life = this.#life(record);
    if (record.ephemeral)
      throw new AppError('invalid', 'Unable to stop statefully. An ephemeral instance goes when it stops');
    await states.require(record, 'Unable to stop statefully', signal);
    await lifecycle.suspend(record, life);
    this.#publish('instance-stopped', record);
  }

  /** By the holder of the lock. */
  async stop(record: InstanceRecord, change: Pick<StateChange, 'force' | 'timeoutSeconds'>, signal: AbortSignal) {
    const life = this.#life(record);
    const kills = change.force || change.timeoutSeconds === 0;
    await this.#end(record, life, { kills, options: shutDownOptions(change, signal) });
    this.#publish(kills ? 'instance-stopped' : 'instance-shutdown', record);
    await this.#removeEphemeral(record);
  }

  async #restart(record: InstanceRecord, change: StateChange, signal: AbortSignal): Promise<void> {
    const life = this.#life(record);
    const kills = change.force || change.timeoutSeconds === 0;
    const { context, lifecycle } = this.#parts;
    await whileStopped(context, record, async () => {
      await this.#end(record, life, { kills, options: shutDownOptions(change, signal) });
      await lifecycle.start(context.database.instances.get(record.project, record.name), signal);
    });
    this.#publish('instance-restarted', record);
  }

  async #end(record: InstanceRecord, life: Life, { kills, options }: Ending): Promise<void> {
    const { lifecycle } = this.#parts;
    if (kills) await lifecycle.kill(record, life);
    else await lifecycle.shutDown(record, life, options);
  }

  async #freeze(record: InstanceRecord, signal: AbortSignal): Promise<void> {
    const life = this.#life(record, "The container isn't running");
    if (life.status === 'Frozen') throw new AppError('invalid', 'The container is already frozen');
    await this.#parts.runtime.freeze(life.container, signal);
    await silence(this.#parts, record, life);
    life.status = 'Frozen';
    this.#publish('instance-paused', record);
  }

  async #unfreeze(record: InstanceRecord, signal: AbortSignal): Promise<void> {
    const life = this.#life(record, "The container isn't running");
    if (life.status !== 'Frozen') throw new AppError('invalid', 'The container is already running');
    await thaw(this.#parts, record, life, signal);
    life.status = 'Running';
    this.#publish('instance-resumed', record);
  }

  #life({ id }: InstanceRecord, complaint = 'The instance is already stopped'): Life {
    const life = this.#parts.supervisor.life(id);
    if (!life) throw new AppError('invalid', complaint);
    return life;
  }

  /** The container ended by itself, or was ended from outside. */
  async ended(instanceId: number, life: Life): Promise<void> {
    await this.#follow(instanceId, life, async (record) => {
      const { lifecycle, context } = this.#parts;
      await lifecycle.finish(record, life);
      this.#publish('instance-shutdown', record);
      if (await startsAgain(context, record)) await this.#startRebooted(record);
      else await this.#removeEphemeral(record);
    });
  }

  /** It had been restored, and liblxc starts such a one not again by itself. */
  async #startRebooted({ project, name }: InstanceRecord): Promise<void> {
    const { lifecycle, context } = this.#parts;
    const record = context.database.instances.get(project, name);
    try {
      await lifecycle.start(record, AbortSignal.timeout(REMOVE_LIMIT_MS));
    } finally {
      await forgetStartAgain(context, record);
    }
    this.#publish('instance-restarted', record);
  }

  /** liblxc has started it again, as it was. Settings that were changed meanwhile take a real restart. */
  async rebooted(instanceId: number, life: Life): Promise<void> {
    await this.#follow(instanceId, life, async (record) => {
      this.#publish('instance-shutdown', record);
      const { lifecycle, context } = this.#parts;
      if (await lifecycle.isOutdated(record)) {
        await whileStopped(context, record, async () => {
          await lifecycle.kill(record, life);
          const current = context.database.instances.get(record.project, record.name);
          await lifecycle.start(current, AbortSignal.timeout(REMOVE_LIMIT_MS));
        });
      } else await lifecycle.resume(record, life, AbortSignal.timeout(REMOVE_LIMIT_MS));
      this.#publish('instance-restarted', record);
    });
  }

  /** Under the lock, and only if the life is still the instance's and nobody else has dealt with its end. */
  async #follow(instanceId: number, life: Life, work: (record: InstanceRecord) => Promise<void>): Promise<void> {
    const { context, supervisor } = this.#parts;
    const { project, name } = life.key;
    await context.locks.run(lockKey(life.key), async () => {
      const record = context.database.instances.find(project, name);
      if (record && supervisor.life(instanceId) === life) await work(record);
    });
  }

  async #removeEphemeral(record: InstanceRecord): Promise<void> {
    if (!record.ephemeral) return;
    const { changes, context } = this.#parts;
    try {
      await changes.remove(record, AbortSignal.timeout(REMOVE_LIMIT_MS));
    } catch (error) {
      context.log.warn('an ephemeral instance was not removed', { instance: record.name, error: messageOf(error) });
    }
  }

  #publish(action: string, { name, project }: InstanceRecord): void {
    this.#parts.context.events.lifecycle({ action, source: `/1.0/instances/${name}`, project });
  }
}

interface Ending {
  readonly kills: boolean;
  readonly options: ShutDownOptions;
}

function shutDownOptions(
  { timeoutSeconds }: Pick<StateChange, 'timeoutSeconds'>,
  signal: AbortSignal,
): ShutDownOptions {
  return { signal, timeoutMs: timeoutSeconds < 0 ? undefined : timeoutSeconds * 1000 };
}
