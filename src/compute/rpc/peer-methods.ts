// What other computes of this kind ask, in a namespace of our own.
import type { ComputeOperations } from '../operations.ts';
import { DISCARD_GUEST, RECEIVE_GUEST } from '../resize/peer.ts';
import { type RpcMethod, rpcMethod } from './method.ts';
import { dict, text, whole } from './params.ts';

const receiveArgs = { migration_id: whole(), ticket: dict() };
const discardArgs = { instance_uuid: text() };

/** A failure is the sender's to tell: it is the one that has the instance. */
export function peerMethods(operations: ComputeOperations): readonly RpcMethod[] {
  return [
    rpcMethod({
      name: RECEIVE_GUEST.method,
      args: receiveArgs,
      wrappers: [],
      handle: ({ context }, { migration_id: migrationId, ticket }) =>
        operations.receiveGuest(context, { migrationId, ticket }),
    }),
    rpcMethod({
      name: DISCARD_GUEST.method,
      args: discardArgs,
      wrappers: [],
      handle: ({ context }, { instance_uuid: uuid }) => operations.discardGuest(context, uuid),
    }),
  ];
}
