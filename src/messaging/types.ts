// What the rest of the project sees of oslo.messaging (nova-compute-contract section 1).
import type { Log } from '#src/lib/log.ts';
import type { Service } from '#src/lib/service.ts';
import type { RabbitOptions } from './options.ts';

/** Context fields without their `_context_` prefix, as RequestContext.to_dict() gives them. */
export type WireContext = Readonly<Record<string, unknown>>;
export type WireArgs = Readonly<Record<string, unknown>>;

export interface RpcTarget {
  readonly topic: string;
  /** Present: the queue `<topic>.<server>`. */
  readonly server?: string;
  readonly fanout?: boolean;
  readonly version: string;
  readonly namespace?: string;
}

export interface RpcRequest {
  readonly target: RpcTarget;
  readonly method: string;
  readonly args: WireArgs;
  readonly context: WireContext;
}

export interface CallOptions {
  /** Milliseconds to wait for the reply; default rpc_response_timeout (60 s). */
  readonly timeoutMs?: number;
  /**
   * Call monitoring (section 1.7): whole seconds, in milliseconds, after which the call fails unless the server sent a
   * sign of life. For long calls: `timeoutMs` = long_rpc_timeout, `monitorMs` = rpc_response_timeout.
   */
  readonly monitorMs?: number;
  readonly signal?: AbortSignal;
}

export interface RpcClient {
  /** Rejects with RemoteError (the peer's exception) or AppError 'unavailable' (no reply in time, no broker). */
  call(request: RpcRequest, options?: CallOptions): Promise<unknown>;
  /** Resolves when the broker has confirmed the message. */
  cast(request: RpcRequest): Promise<void>;
}

/** `signal` aborts when the server stops and its grace time is over. */
export type RpcHandler = (context: WireContext, args: WireArgs, signal: AbortSignal) => Promise<unknown>;

/** Methods of one namespace and one major version; tried in the order given to the server (section 1.5). */
export interface RpcEndpoint {
  readonly namespace?: string;
  /** Highest version served, such as '6.5'. */
  readonly version: string;
  readonly methods: Readonly<Record<string, RpcHandler>>;
}

/** How an exception travels (section 1.9). */
export interface WireFailure {
  readonly class: string;
  readonly module: string;
  readonly message: string;
  readonly args: readonly unknown[];
  readonly kwargs: Readonly<Record<string, unknown>>;
  readonly tb: readonly string[];
}

/** Given to the server: turns whatever a handler threw into what the caller of the RPC gets. */
export type FailureSerializer = (error: unknown) => WireFailure;

/** Given to createRpcTransport (transport.ts). */
export interface RpcTransportOptions {
  /** `[DEFAULT] transport_url`; '' means oslo's default rabbit://. Never logged. */
  readonly transportUrl: string;
  /** `[oslo_messaging_rabbit]`, see options.ts; absent: oslo's defaults. The URL's query overrides it. */
  readonly rabbit?: RabbitOptions;
  readonly log: Log;
  /** First part of connection_name, and oslo's processname when use_queue_manager is on: 'nova-compute'. */
  readonly programName: string;
  /** `[DEFAULT] control_exchange`; default 'nova'. */
  readonly controlExchange?: string;
  /** `[DEFAULT] rpc_response_timeout` in milliseconds; default 60 000. */
  readonly responseTimeoutMs?: number;
}

export interface RpcServerOptions {
  readonly topic: string;
  /** The host: queue `<topic>.<server>`. */
  readonly server: string;
  readonly endpoints: readonly RpcEndpoint[];
  /** What a call's sender gets for a thrown error; default plainFailure (failure.ts). */
  readonly serializeFailure?: FailureSerializer;
  /** Name that the base API's ping answers with; default the topic. */
  readonly service?: string;
  /** `[DEFAULT] executor_thread_pool_size`; default 64. */
  readonly concurrency?: number;
  /** `[DEFAULT] rpc_ping_enabled`; default false. */
  readonly pingEnabled?: boolean;
}

export type NotificationPriority = 'AUDIT' | 'DEBUG' | 'INFO' | 'WARN' | 'ERROR' | 'CRITICAL' | 'SAMPLE';
export type NotificationDriver = 'messaging' | 'messagingv2' | 'log' | 'noop' | 'test';

export interface NotifierOptions {
  /** `[oslo_messaging_notifications] driver`; [] emits nothing. 'routing' is refused. */
  readonly drivers: readonly string[];
  readonly topics: readonly string[];
  readonly publisherId: string;
  /** `[oslo_messaging_notifications] transport_url`; absent or '': the RPC transport's. */
  readonly transportUrl?: string;
  /** `[oslo_messaging_notifications] retry`; -1 (default) tries until the queue limit pushes the message out. */
  readonly retry?: number;
  /** Messages waiting for the broker at most; the oldest is dropped beyond. Default 1000. */
  readonly queueLimit?: number;
}

export interface Notification {
  readonly context: WireContext;
  readonly eventType: string;
  readonly priority: NotificationPriority;
  readonly payload: unknown;
}

export interface Notifier {
  /** Never throws, never waits (section 1.12). */
  notify(notification: Notification): void;
  /** Waits until what is queued has been sent or the signal aborts. */
  flush(signal: AbortSignal): Promise<void>;
}

/** One broker (cluster): all RPC of the process. */
export interface RpcTransport {
  client(options?: { readonly timeoutMs?: number }): RpcClient;
  /** Queues are declared and consumed by start(); stop() ends consuming first and then waits for what is in flight. */
  server(options: RpcServerOptions): Service;
  notifier(options: NotifierOptions): Notifier;
  /** Closes all connections; what still waits is rejected with 'unavailable'. Stop servers and flush notifiers before. */
  close(): Promise<void>;
}
