// The bodies of LXD's REST API as they are on the wire: snake_case, optional where a server may leave them out.
import type { DeviceMap, StringMap } from './wire-resources.ts';

export type * from './wire-resources.ts';

/** Status codes of instances and operations. */
export const STATUS = {
  created: 100,
  started: 101,
  stopped: 102,
  running: 103,
  cancelling: 104,
  pending: 105,
  starting: 106,
  stopping: 107,
  aborting: 108,
  freezing: 109,
  frozen: 110,
  thawed: 111,
  error: 112,
  ready: 113,
  success: 200,
  failure: 400,
  cancelled: 401,
} as const;

export interface Envelope {
  readonly type: 'sync' | 'async' | 'error';
  readonly status: string;
  readonly status_code: number;
  readonly operation: string;
  readonly error_code: number;
  readonly error: string;
  readonly metadata: unknown;
}

export interface Server {
  readonly api_extensions: readonly string[];
  readonly api_version: string;
  readonly auth: 'trusted' | 'untrusted';
  /** Absent for clients that are not trusted. */
  readonly config?: Readonly<Record<string, unknown>>;
  readonly environment?: Readonly<Record<string, unknown>> & {
    readonly server: string;
    readonly server_name: string;
    readonly server_version: string;
    readonly driver_version?: string;
    readonly kernel_architecture: string;
    readonly architectures?: readonly string[];
    readonly kernel_features?: { readonly idmapped_mounts?: string };
  };
}

export interface Resources {
  readonly cpu: {
    readonly architecture: string;
    readonly total: number;
    readonly sockets: readonly CpuSocket[];
  };
  readonly memory: { readonly total: number; readonly used: number };
  readonly system?: Readonly<Record<string, unknown>>;
}

export interface CpuSocket {
  readonly name?: string;
  readonly vendor?: string;
  readonly cores: readonly { readonly threads: readonly CpuThread[] }[];
}

export interface CpuThread {
  readonly id: number;
  readonly online: boolean;
  readonly numa_node?: number;
}

export interface Operation {
  readonly id: string;
  readonly class: 'task' | 'websocket' | 'token';
  readonly description: string;
  readonly status: string;
  readonly status_code: number;
  readonly resources: Readonly<Record<string, readonly string[] | null>> | null;
  readonly metadata: Readonly<Record<string, unknown>> | null;
  readonly may_cancel: boolean;
  readonly err: string;
  readonly created_at?: string;
  readonly updated_at?: string;
}

export interface InstancePut {
  readonly architecture?: string;
  readonly config?: StringMap;
  readonly devices?: DeviceMap;
  readonly ephemeral?: boolean;
  readonly profiles?: readonly string[];
  readonly description?: string;
  readonly stateful?: boolean;
  /** Name of a snapshot to go back to; nothing else counts then. */
  readonly restore?: string;
}

/** POST /1.0/instances/{name}: rename, or a move inside the engine. */
export interface InstancePost {
  readonly name?: string;
  readonly migration?: boolean;
  readonly instance_only?: boolean;
  readonly live?: boolean;
  readonly pool?: string;
  readonly project?: string;
}

export interface InstanceSnapshotsPost {
  /** Empty: by the pattern of the instance. */
  readonly name: string;
  readonly stateful: boolean;
  readonly expires_at?: string;
}

export interface InstanceSource {
  readonly type: 'image' | 'none' | 'copy' | 'migration';
  readonly alias?: string;
  readonly fingerprint?: string;
  readonly secret?: string;
  readonly certificate?: string;
  readonly project?: string;
  readonly source?: string;
  readonly server?: string;
  readonly protocol?: string;
  readonly mode?: string;
  /** migration, pull: URL of the source's operation, and the secrets of its channels. */
  readonly operation?: string;
  readonly secrets?: StringMap;
  readonly instance_only?: boolean;
  readonly refresh?: boolean;
  readonly allow_inconsistent?: boolean;
}

export interface InstancesPost extends InstancePut {
  readonly name?: string;
  readonly type?: 'container' | 'virtual-machine';
  readonly instance_type?: string;
  readonly source: InstanceSource;
  /** Starts it in the same request; only with the API extension instance_create_start. */
  readonly start?: boolean;
}

export interface Instance {
  readonly name: string;
  readonly type: string;
  readonly architecture: string;
  readonly status: string;
  readonly status_code: number;
  readonly config: StringMap;
  readonly devices: DeviceMap;
  readonly expanded_config?: StringMap;
  readonly expanded_devices?: DeviceMap;
  readonly profiles: readonly string[] | null;
  readonly ephemeral: boolean;
  readonly stateful: boolean;
  readonly description: string;
  readonly created_at: string;
  readonly last_used_at: string;
  readonly location: string;
  readonly project?: string;
}

export interface InstanceStateAddress {
  readonly family: string;
  readonly address: string;
  readonly netmask: string;
  readonly scope: string;
}

export interface InstanceStateNetwork {
  readonly addresses: readonly InstanceStateAddress[] | null;
  readonly hwaddr: string;
  readonly host_name: string;
  readonly mtu: number;
  readonly state: string;
  readonly type: string;
  readonly counters?: Readonly<Record<string, number>>;
}

export interface InstanceState {
  readonly status: string;
  readonly status_code: number;
  readonly pid: number;
  readonly processes: number;
  readonly cpu?: { readonly usage: number };
  readonly memory?: Readonly<Record<string, number>>;
  readonly disk?: Readonly<Record<string, { readonly usage: number }>> | null;
  readonly network?: Readonly<Record<string, InstanceStateNetwork>> | null;
}

export interface InstanceFull extends Instance {
  readonly state: InstanceState | null;
  readonly snapshots: readonly unknown[] | null;
  readonly backups: readonly unknown[] | null;
}

export interface InstanceSnapshot {
  readonly name: string;
  readonly created_at: string;
  readonly expires_at: string;
  readonly stateful: boolean;
}

export interface InstanceBackup {
  readonly name: string;
  readonly created_at: string;
  readonly expires_at: string;
  readonly instance_only: boolean;
  readonly optimized_storage: boolean;
}

export type StateAction = 'start' | 'stop' | 'restart' | 'freeze' | 'unfreeze';

export interface InstanceStatePut {
  readonly action: StateAction;
  /** Seconds; -1: no limit. */
  readonly timeout?: number;
  readonly force?: boolean;
  readonly stateful?: boolean;
}

export interface LifecycleMetadata {
  readonly action: string;
  readonly source: string;
  readonly context?: Readonly<Record<string, unknown>>;
}

export interface LogMetadata {
  readonly message: string;
  readonly level: string;
  readonly context?: Readonly<Record<string, string>> | null;
}

export type EventType = 'logging' | 'operation' | 'lifecycle';

export interface ApiEvent {
  readonly type: EventType;
  readonly timestamp: string;
  readonly location?: string;
  readonly project?: string;
  readonly metadata: unknown;
}
