// All that a control plane may ask of this service, as endpoints of the messaging server (table 5.1).
import type { RpcEndpoint, RpcHandler } from '#src/messaging/types.ts';
import type { ComputeOperations } from '../operations.ts';
import { RECEIVE_GUEST } from '../resize/peer.ts';
import type { ComputeServices } from '../types.ts';
import { consoleMethods } from './console-methods.ts';
import { hostMethods } from './host-methods.ts';
import { instanceMethods } from './instance-methods.ts';
import { peerMethods } from './peer-methods.ts';
import { rescueMethods } from './rescue-methods.ts';
import { resizeMethods } from './resize-methods.ts';
import type { RpcMethod } from './method.ts';
import { volumeMethods } from './volume-methods.ts';
import { unsupportedMethods } from './unsupported-methods.ts';

export { createInstanceOperations } from '../operations.ts';

/** 6.x is what Zed and later send; 5.x comes from control planes pinned to Victoria or older, with the same arguments. */
const VERSIONS = ['6.5', '5.13'] as const;

/** A method that is not here does not exist for the caller: NoSuchMethod. */
export function computeEndpoints(services: ComputeServices, operations: ComputeOperations): readonly RpcEndpoint[] {
  const methods = [
    ...instanceMethods(services, operations),
    ...rescueMethods(operations),
    ...resizeMethods(operations),
    ...volumeMethods(operations),
    ...hostMethods(services),
    ...consoleMethods(operations),
    ...unsupportedMethods(),
  ];
  const handlers = handlersOf(services, methods);
  const { target } = RECEIVE_GUEST;
  return [
    ...VERSIONS.map((version) => ({ version, methods: handlers })),
    { ...target, methods: handlersOf(services, peerMethods(operations)) },
  ];
}

function handlersOf(services: ComputeServices, methods: readonly RpcMethod[]): Readonly<Record<string, RpcHandler>> {
  return Object.fromEntries(methods.map((method) => [method.name, method.handler(services)]));
}
