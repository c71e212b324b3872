// The payload of a request, written and read (section 1.5).
import { randomUUID } from 'node:crypto';
import type { Payload } from './envelope.ts';
import type { RpcRequest, WireArgs, WireContext } from './types.ts';

const CONTEXT_PREFIX = '_context_';

/** What makes a request a call. */
export interface CallFields {
  readonly msgId: string;
  readonly replyQueue: string;
  /** Seconds of call monitoring, or null. */
  readonly monitorSeconds: number | null;
}

export interface IncomingRequest {
  readonly method: string;
  readonly namespace: string | undefined;
  readonly version: string;
  readonly args: WireArgs;
  readonly context: WireContext;
  readonly uniqueId: string | undefined;
  /** Absent: a cast. */
  readonly call: { readonly msgId: string; readonly replyQueue: string; readonly monitor: unknown } | undefined;
}

/** 32 hex digits, as Python's uuid4().hex. */
export function hexId(): string {
  return randomUUID().replaceAll('-', '');
}

/** Keys in the order that oslo.messaging writes them. */
export function requestPayload({ target, method, args, context }: RpcRequest, call?: CallFields): Payload {
  return {
    method,
    args,
    ...(target.namespace === undefined ? {} : { namespace: target.namespace }),
    version: target.version,
    ...(call ? { _msg_id: call.msgId, _reply_q: call.replyQueue, _timeout: call.monitorSeconds } : {}),
    _unique_id: hexId(),
    ...contextKeys(context),
  };
}

export function contextKeys(context: WireContext): Payload {
  return Object.fromEntries(Object.entries(context).map(([key, value]) => [`${CONTEXT_PREFIX}${key}`, value]));
}

export function parseRequest(payload: Payload): IncomingRequest {
  const context = Object.entries(payload).filter(([key]) => key.startsWith(CONTEXT_PREFIX));
  const msgId = text(payload['_msg_id']);
  const replyQueue = text(payload['_reply_q']);
  const args = payload['args'];
  return {
    method: text(payload['method']) ?? '',
    namespace: text(payload['namespace']),
    version: text(payload['version']) ?? '1.0',
    args: typeof args === 'object' && args !== null ? (args as WireArgs) : {},
    context: Object.fromEntries(context.map(([key, value]) => [key.slice(CONTEXT_PREFIX.length), value])),
    uniqueId: text(payload['_unique_id']),
    call: msgId && replyQueue ? { msgId, replyQueue, monitor: payload['_timeout'] } : undefined,
  };
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
