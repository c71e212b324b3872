// What computes of this kind say to each other beside Nova's own steps of a move. A stock compute does not know it, and says so.
import type { RequestContext } from '#src/nova/context.ts';
import type { ComputeServices, MoveRecords } from '../types.ts';

const target = { namespace: 'lightervisor', version: '1.0' } as const;

/** A call: {migration_id, ticket}; the result comes when the guest is there, or at once as BUSY. */
export const RECEIVE_GUEST = { target, method: 'receive_guest' } as const;

/** A cast: {instance_uuid}; the move is in error, and nobody comes for what has arrived. */
export const DISCARD_GUEST = { target, method: 'discard_guest' } as const;

/** Too many arrive already, or this one does: to be offered again later. */
export const BUSY = 'busy';
export const RECEIVED = 'received';

/** Without an answer: the destination finds it by itself later, if this is lost. */
export async function discardAtDestination(
  { rpc, log }: Pick<ComputeServices, 'rpc' | 'log'>,
  context: RequestContext,
  { instance, migration }: MoveRecords,
): Promise<void> {
  const server = migration.get('dest_compute');
  if (server === null || server === migration.get('source_compute')) return;
  const uuid = instance.get('uuid');
  const { target: address, method } = DISCARD_GUEST;
  const args = { instance_uuid: uuid };
  await rpc
    .cast({ target: { topic: 'compute', server, ...address }, method, args, context: context.toWire() })
    .catch((error: unknown) => log.warn('cannot tell the destination of a failed move', { instance: uuid, error }));
}
