// Guests of moves that are over and of which nobody took this host's part away: a compute was down, or a removal failed.
import type { KeyedLock } from '#src/lib/keyed-lock.ts';
import { MIGRATION_STATUSES as STATUS, TASK_STATES } from '#src/nova/states.ts';
import type { VirtDriver, VirtInstance } from '#drivers/virt/driver.ts';
import { findInstance, instancesOfHost } from '../records.ts';
import type { MoveRecords } from '../types.ts';
import { type MoveRecoveryParts, newestMove } from './interrupted-moves.ts';

export interface StrayParts extends Omit<MoveRecoveryParts, 'operations'> {
  readonly virt: VirtDriver;
  readonly locks: KeyedLock;
  /** At start no step of a move can be under way: what was interrupted is gone on with. */
  readonly recover?: (move: MoveRecords, signal: AbortSignal) => Promise<void>;
}

interface AllParts extends StrayParts {
  /** Uuids of the instances that Nova has on this host, for who has just read them. */
  readonly own?: ReadonlySet<string>;
}

const ATTRIBUTES = ['flavor', 'info_cache', 'metadata', 'system_metadata'] as const;
/** Nobody goes on with such a move. */
const OVER: ReadonlySet<string | null> = new Set([
  STATUS.confirmed,
  STATUS.reverted,
  STATUS.error,
  STATUS.failed,
  STATUS.cancelled,
  STATUS.done,
  STATUS.completed,
]);

/**
 * Removes only what Nova's records say is not needed: the instance is on another host, and either its guest here never
 * started since it arrived, or the move that left it here was confirmed, or reverted. The guest of a move that failed half-way
 * stays until its instance is deleted: it may be the better one of two.
 */
export async function removeStrays(parts: AllParts, signal: AbortSignal): Promise<void> {
  const guests = await parts.virt.listInstances(signal);
  if (guests.length === 0) return;
  // nearly all of them: a question for each would take seconds of the conductor's time where there are hundreds
  const own = parts.own ?? (await ownUuids(parts));
  for (const guest of guests) if (!own.has(guest.uuid)) await removeStray(parts, guest, signal);
}

async function ownUuids({ asking, host }: StrayParts): Promise<ReadonlySet<string>> {
  return new Set((await instancesOfHost(asking, host, [])).map((instance) => instance.get('uuid')));
}

/** One of them, if it is one. What fails is logged: the next run tries again. */
export async function removeStray(parts: StrayParts, guest: VirtInstance, signal: AbortSignal): Promise<void> {
  const { asking, locks, log, host } = parts;
  if (locks.isBusy(guest.uuid)) return;
  try {
    const instance = await findInstance(asking, guest.uuid, ATTRIBUTES);
    // deleted ones are another task's
    if (!instance || instance.get('host') === host) return;
    const migration = await newestMove(asking, guest.uuid);
    if (migration) await settle(parts, { guest, move: { instance, migration } }, signal);
  } catch (error) {
    signal.throwIfAborted();
    log.warn('guest of a move that is over not removed', { instance: guest.uuid, error });
  }
}

interface Stray {
  readonly guest: VirtInstance;
  readonly move: MoveRecords;
}

async function settle(parts: StrayParts, { guest, move }: Stray, signal: AbortSignal): Promise<void> {
  const { asking, virt, locks, log, host } = parts;
  const { migration } = move;
  if (!isLeftOver(guest, move, host)) return await parts.recover?.(move, signal);
  log.info('removing the guest of a move that is over', { instance: guest.uuid, status: migration.get('status') });
  await locks.run(guest.uuid, async () => {
    // read again: it may be on its way here anew
    const [stored, newest] = await Promise.all([findInstance(asking, guest.uuid, []), newestMove(asking, guest.uuid)]);
    if (!stored || stored.get('host') === host || newest?.get('id') !== migration.get('id')) return;
    await virt.destroy(guest.uuid, signal);
  });
}

function isLeftOver({ isArriving }: VirtInstance, { instance, migration }: MoveRecords, host: string): boolean {
  const status = migration.get('status');
  if (!OVER.has(status) || instance.get('task_state') === TASK_STATES.resizeReverting) return false;
  if (isArriving) return true;
  const isSource = migration.get('source_compute') === host;
  const isDestination = migration.get('dest_compute') === host;
  return (isSource && status === STATUS.confirmed) || (isDestination && status === STATUS.reverted);
}
