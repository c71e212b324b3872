// What a compute puts in order before it takes work: left-over guests, interrupted operations (contract section 4.3).
import { kindOf } from '#src/lib/errors.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { createSchedulerClient } from '#src/nova/scheduler.ts';
import { type Asking, type Instance, instancesOfHost } from '../records.ts';
import type { ComputeServices, InstanceOperations, MoveRecords } from '../types.ts';
import { removeEvacuated } from './evacuated.ts';
import { unclaimedConsumers } from './interrupted-builds.ts';
import { recoverMove, recoverMoves } from './interrupted-moves.ts';
import { recoverInstances } from './recover-instances.ts';
import { recoverSwaps } from './interrupted-swaps.ts';
import { removeStrays } from './stray-guests.ts';

/** Operations need these of an instance. */
export const ATTRIBUTES = ['flavor', 'info_cache', 'metadata', 'system_metadata'] as const;

export interface FoundAtStart {
  /** Of this host. */
  readonly instances: readonly Instance[];
  /** Uuids of what has resources here and is no instance of this host. */
  readonly unclaimed: readonly string[];
}

/** Steps 4 and 6 to 9 of section 4.3; identity and engine have been checked. */
export async function initHost(
  services: ComputeServices,
  operations: InstanceOperations,
  context: RequestContext,
  signal: AbortSignal,
): Promise<FoundAtStart> {
  const { config, conductor, log, placement, virt, tracker, rpc } = services;
  const asking = { conductor, context };
  const providerUuid = tracker.computeNodeUuid;
  const instances = await instancesOfHost(asking, config.host, ATTRIBUTES);
  await attempt('evacuated instances', async () => {
    await removeEvacuated({ asking, placement, operations, log, host: config.host, providerUuid }, signal);
  });
  await virt.removeLeftovers(signal);
  const powers = new Map((await virt.listInstances(signal)).map(({ uuid, powerState }) => [uuid, powerState]));
  await attempt('volumes of no instance', async () => {
    const failures = await services.volumes.keepOnly(new Set(powers.keys()), signal);
    for (const error of failures) log.error('a volume of no instance stays connected', { error });
  });
  await attempt('interrupted swaps of volumes', async () => {
    await recoverSwaps({ asking, operations, log }, instances, signal);
  });
  const resumesGuests = config.power.resumeGuestsStateOnHostBoot;
  await recoverInstances({ context, conductor, operations, log, resumesGuests }, instances, powers, signal);
  const known = new Set(instances.map((instance) => instance.get('uuid')));
  let unclaimed: readonly string[] = [];
  await attempt('interrupted builds', async () => {
    unclaimed = await unclaimedConsumers({ placement, providerUuid }, known, signal);
  });
  if (instances.length > 0 && config.periodic.trackInstanceChanges) {
    await createSchedulerClient(rpc).updateInstanceInfo(context, config.host, instances);
  }
  return { instances, unclaimed };

  /** A compute must be able to start without these; most need Placement. */
  async function attempt(what: string, work: () => Promise<void>): Promise<void> {
    await attempted(services, { what, work, signal });
  }
}

/** The last part, when the compute node is known: moves between hosts. `instances`: this host's, as initHost() found them. */
export async function resumeMoves(
  services: ComputeServices,
  operations: InstanceOperations,
  { asking, instances }: { readonly asking: Asking; readonly instances: readonly Instance[] },
  signal: AbortSignal,
): Promise<void> {
  const { config, log, virt, locks } = services;
  const parts = { asking, operations, log, host: config.host };
  const work = async (): Promise<void> => {
    await recoverMoves(parts, instances, signal);
    const recover = (move: MoveRecords, limit: AbortSignal): Promise<void> => recoverMove(parts, move, limit);
    const own = new Set(instances.map((instance) => instance.get('uuid')));
    await removeStrays({ ...parts, virt, locks, recover, own }, signal);
  };
  await attempted(services, { what: 'interrupted moves', work, signal });
}

async function attempted(
  { log }: ComputeServices,
  { what, work, signal }: { readonly what: string; readonly work: () => Promise<void>; readonly signal: AbortSignal },
): Promise<void> {
  try {
    await work();
  } catch (error) {
    signal.throwIfAborted();
    // no provider yet: a first start
    if (kindOf(error) === 'not_found') return;
    log.error(`${what} not looked after`, { error });
  }
}
