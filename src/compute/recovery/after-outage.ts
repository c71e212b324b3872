// Tasks that nobody works on any more, because the conductor was away when their operations wanted to write how they ended. A stock
// compute leaves them until it is started again; here they are put right as at a start (contract section 4.6).
import type { Service } from '#src/lib/service.ts';
import { aborted, sleep } from '#src/lib/wait.ts';
import { RequestContext } from '#src/nova/context.ts';
import { MIGRATION_STATUSES, MIGRATION_TYPES, VM_STATES } from '#src/nova/states.ts';
import { type Asking, findInstance, type Instance, instancesOfHost, migrationsByFilters } from '../records.ts';
import type { ComputeServices, InstanceOperations } from '../types.ts';
import { ATTRIBUTES } from './init-host.ts';
import { unclaimedConsumers } from './interrupted-builds.ts';
import { recoverInstances } from './recover-instances.ts';
import { giveUpUnclaimed } from './unclaimed.ts';

/** As long as operations give up one call after the other. */
const LOOKS = 10;
/** Tasks of moves: another host may be working on them. */
const MOVING = /^(resize_|migrating)/;
/** States that nothing stays in, even when it is in no task. */
const UNFINISHED: ReadonlySet<string> = new Set([VM_STATES.building, VM_STATES.deleted]);

export class OutageRecovery implements Service {
  readonly name = 'recovery after outages';
  readonly #services: ComputeServices;
  readonly #operations: InstanceOperations;
  readonly #asking: Asking;
  readonly #spacingMs: number;
  readonly #ending = new AbortController();
  #work: Promise<void> | undefined;

  /** `spacingMs` between two looks: longer than a request takes to arrive once the API has named its task. */
  constructor(services: ComputeServices, operations: InstanceOperations, spacingMs: number) {
    this.#services = services;
    this.#operations = operations;
    this.#asking = { conductor: services.conductor, context: RequestContext.admin() };
    this.#spacingMs = spacingMs;
  }

  async start(): Promise<void> {}

  async stop(signal: AbortSignal): Promise<void> {
    this.#ending.abort();
    await Promise.race([this.#work, aborted(signal)]);
  }

  /** To be called when the conductor answers again. Ends when there is nothing left to look at; never rejects. */
  begin(): Promise<void> {
    this.#work ??= this.#lookUntilQuiet().finally(() => {
      this.#work = undefined;
    });
    return this.#work;
  }

  async #lookUntilQuiet(): Promise<void> {
    const { signal } = this.#ending;
    let before: ReadonlyMap<string, string> = new Map();
    try {
      let unclaimed = await this.#perhapsUnclaimed();
      for (let look = 0; look < LOOKS; look += 1) {
        before = await this.#look(before);
        if (look > 0) {
          await this.#giveUp(unclaimed);
          unclaimed = [...this.#services.underWay.left]; // since the look before
        }
        if (before.size === 0 && unclaimed.length === 0) return;
        await sleep(this.#spacingMs, signal);
      }
    } catch (error) {
      if (!signal.aborted) this.#services.log.warn('tasks that an outage left behind are not looked after', { error });
    }
  }

  /** What may be builds and arrivals that were not claimed: uuids of all that has resources of this host, or whose request knows no better. */
  async #perhapsUnclaimed(): Promise<readonly string[]> {
    const { placement, tracker, log, underWay } = this.#services;
    const { signal } = this.#ending;
    const question = { placement, providerUuid: tracker.computeNodeUuid };
    const consumers = await unclaimedConsumers(question, new Set(), signal).catch((error: unknown) => {
      signal.throwIfAborted();
      log.warn('not all builds that an outage interrupted are looked after', { error });
      return [];
    });
    return [...consumers, ...underWay.left];
  }

  async #giveUp(uuids: readonly string[]): Promise<void> {
    const { log, config } = this.#services;
    const isBusy = (uuid: string): boolean => this.#isBusy(uuid);
    const parts = { asking: this.#asking, operations: this.#operations, log, host: config.host, isBusy };
    await giveUpUnclaimed(parts, uuids);
    for (const uuid of uuids) this.#services.underWay.left.delete(uuid);
  }

  /** Puts right what nobody has touched since the look before. Returns what else is in a task, each as it was found. */
  async #look(before: ReadonlyMap<string, string>): Promise<ReadonlyMap<string, string>> {
    const { config, log } = this.#services;
    const found = new Map<string, string>();
    for (const instance of await instancesOfHost(this.#asking, config.host, [])) {
      const mark = markOf(instance);
      // when nobody is busy with it any more the look that finds that is the first one
      if (mark !== undefined) found.set(instance.get('uuid'), this.#isBusy(instance.get('uuid')) ? '' : mark);
    }
    for (const [uuid, mark] of found) {
      if (mark === '' || before.get(uuid) !== mark) continue;
      found.delete(uuid);
      await this.#recover(uuid, mark).catch((error: unknown) => {
        log.warn('a task that an outage left behind stays', { instance: uuid, error });
      });
    }
    return found;
  }

  async #recover(uuid: string, mark: string): Promise<void> {
    const { config, virt, log } = this.#services;
    const { signal } = this.#ending;
    const instance = await findInstance(this.#asking, uuid, ATTRIBUTES);
    if (instance?.get('host') !== config.host || (await this.#isEvacuated(instance))) return;
    const power = await virt.powerState(uuid, signal);
    if (markOf(instance) !== mark || this.#isBusy(uuid)) return;
    const parts = { ...this.#asking, operations: this.#operations, log, resumesGuests: false };
    await recoverInstances(parts, [instance], new Map([[uuid, power]]), signal);
  }

  /** It is another host that rebuilds it then. */
  async #isEvacuated(instance: Instance): Promise<boolean> {
    const filters = {
      instance_uuid: instance.get('uuid'),
      status: [MIGRATION_STATUSES.accepted, MIGRATION_STATUSES.preMigrating],
      migration_type: MIGRATION_TYPES.evacuation,
    };
    return (await migrationsByFilters(this.#asking, filters)).length > 0;
  }

  #isBusy(uuid: string): boolean {
    const { locks, underWay } = this.#services;
    return locks.isBusy(uuid) || underWay.has(uuid) || this.#operations.isBuilding(uuid);
  }
}

/** What changes when somebody goes on with it; undefined: there is nothing to be put right. */
function markOf(instance: Instance): string | undefined {
  const [state, task] = [instance.get('vm_state') ?? '', instance.get('task_state')];
  const isUnfinished = task === null ? UNFINISHED.has(state) : !MOVING.test(task);
  return isUnfinished ? `${state} ${task} ${String(instance.find('updated_at'))}` : undefined;
}
