// The engine's inner contracts: operations, events, and what its parts are to each other (lxd-engine-contract 1.4, 2.1, 2.5).
import type { WebSocket } from 'ws';
import type { IdMapRange } from '#src/host/id-map.ts';
import type { MetricSet } from './metrics/open-metrics.ts';
import type { Service } from '#src/lib/service.ts';
import type { ProfileRecord } from './db/records.ts';

export interface OperationSpec {
  readonly class: 'task' | 'websocket' | 'token';
  /** As LXD says it: "Creating instance", "Starting instance" … */
  readonly description: string;
  /** Resource URLs by kind: { instances: ['/1.0/instances/c1'] }. */
  readonly resources: Readonly<Record<string, readonly string[]>>;
  readonly project?: string;
  readonly mayCancel?: boolean;
  readonly metadata?: Readonly<Record<string, unknown>>;
  /**
   * Class `websocket`: what to do with the connection that carries `secret`; undefined refuses it before the upgrade
   * (403). Called once per connection attempt.
   */
  readonly connect?: (secret: string) => ((socket: WebSocket) => void) | undefined;
}

/** What a running operation can do to its own record. */
export interface OperationHandle {
  readonly id: string;
  readonly signal: AbortSignal;
  /** Merges into the metadata and publishes it (progress, fds, result). */
  setMetadata(metadata: Readonly<Record<string, unknown>>): void;
}

/** Runs work behind a 202. The record outlives the end by 5 s; every state change is an event. */
export interface Operations {
  /** Returns at once with the operation's id; the error of `work` becomes its `err`. */
  start(spec: OperationSpec, work: (operation: OperationHandle) => Promise<void>): string;
}

export interface LifecycleEvent {
  /** instance-started, image-created … */
  readonly action: string;
  /** URL of the object. */
  readonly source: string;
  readonly project?: string;
  readonly context?: Readonly<Record<string, unknown>>;
}

export interface Events {
  /** The requestor is taken from the request in whose course it is called (events/requestor.ts). */
  lifecycle(event: LifecycleEvent): void;
}

export type ConfigMap = Readonly<Record<string, string>>;
export type DeviceMap = Readonly<Record<string, ConfigMap>>;

/** What a configuration of an instance or profile may say (sections 3.1, 3.2). */
export interface InstanceRules {
  /** Rejects with AppError 'invalid' and LXD's text: `Unknown configuration key: limits.nope`. */
  validateConfig(config: ConfigMap, options: { readonly profile: boolean }): void;
  /** `project`: whose networks nics may name. */
  validateDevices(devices: DeviceMap, options: { readonly profile: boolean; readonly project: string }): void;
}

/** The content of an instance or snapshot, for whoever packs it. */
export interface ReadableRoot {
  readonly rootfsPath: string;
  /** Ids of the files there for those that they have inside; null: the same. */
  readonly owners: IdMapRange | null;
  /** The instance's metadata.yaml (JSON) and templates/; either may be absent. */
  readonly metadataPath: string;
  readonly templatesPath: string;
  readonly architecture: string;
  readonly sizeBytes?: number;
}

export interface RootKey {
  readonly project: string;
  readonly name: string;
  /** Absent: the instance itself, which must be stopped. */
  readonly snapshot?: string;
  /** The instance may run: what is read changes meanwhile. */
  readonly mayRun?: boolean;
  /** The caller holds the instance's lock. */
  readonly isLocked?: boolean;
}

/** Runs `use` while nothing else is done to the instance. AppError with LXD's text for what is absent or running. */
export type ReadRoot = <T>(key: RootKey, use: (root: ReadableRoot) => Promise<T>, signal: AbortSignal) => Promise<T>;

/**
 * What instances are to the rest of the engine. `src/engine/instances/create-instances.ts` exports
 * `createInstances(context: EngineContext, …): InstancesPart & …`.
 */
export interface InstancesPart {
  /** Reconciles at start; stopping it never stops a container. */
  readonly service: Service;
  readonly rules: InstanceRules;
  readonly readRoot: ReadRoot;
  readonly isRunning: (id: number) => boolean;
  /** False while what is to start by itself with the daemon has not been started (or has not failed for good). */
  readonly haveStarted: () => boolean;
  /** Of an instance whose record has been lost and is there again: if its container runs, it is known from now on. */
  adopt(instance: { readonly project: string; readonly name: string }, signal: AbortSignal): Promise<void>;
  /** The host goes down: stops all that run, so that they come back with the next daemon. */
  stopAll(signal: AbortSignal): Promise<void>;
  /** Figures of those that run, of all projects or of some. */
  addMetrics(set: MetricSet, projects: ReadonlySet<string> | undefined, signal: AbortSignal): Promise<void>;
  /** Applies a profile that was changed (`former` is how it was) to each instance that uses it; AppError with the list of those that failed. */
  profileChanged(former: ProfileRecord, signal: AbortSignal): Promise<void>;
}

/** Where the engine keeps things; all absolute. */
export interface EnginePaths {
  /** $LIGHTER_DIR. */
  readonly root: string;
  readonly database: string;
  readonly socket: string;
  readonly images: string;
  readonly storagePools: string;
  /** Loop files of pools. */
  readonly disks: string;
  /** Of each instance a link to its directory in the pool; the sockets of its monitor are named after this place. */
  readonly containers: string;
  /** One directory per instance: metadata.yaml, templates and the engine's notes. */
  readonly instances: string;
  readonly logs: string;
  readonly devices: string;
  /** Of instances, what they see in /sys/block. */
  readonly blocks: string;
  /** Mounts of file systems that processes serve, a directory per instance. */
  readonly servedDisks: string;
  readonly backups: string;
  readonly snapshots: string;
}
