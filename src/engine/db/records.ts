// The rows of the engine's database as the engine sees them. Times are RFC 3339 in UTC.
import type { ConfigMap, DeviceMap } from '../types.ts';

/** What LXD writes for "no time": expiry, creation. */
export const ZERO_TIME = '0001-01-01T00:00:00Z';
/** What LXD writes for "never used". */
export const NEVER_USED = '1970-01-01T00:00:00Z';

export interface InstanceRecord {
  readonly id: number;
  readonly project: string;
  readonly name: string;
  readonly uuid: string;
  readonly type: 'container';
  /** x86_64, aarch64 … */
  readonly architecture: string;
  readonly ephemeral: boolean;
  readonly stateful: boolean;
  readonly description: string;
  /** Local configuration, volatile.* and image.* included. */
  readonly config: ConfigMap;
  /** Local devices. */
  readonly devices: DeviceMap;
  /** In the order of application. */
  readonly profiles: readonly string[];
  /** Of the root disk. */
  readonly pool: string;
  readonly createdAt: string;
  readonly lastUsedAt: string;
}

export type NewInstance = Omit<InstanceRecord, 'id'>;
export type InstanceChanges = Partial<Omit<InstanceRecord, 'id' | 'project' | 'name' | 'uuid' | 'type' | 'createdAt'>>;

export interface SnapshotRecord {
  readonly id: number;
  readonly instanceId: number;
  /** Without the instance's name. */
  readonly name: string;
  readonly architecture: string;
  readonly ephemeral: boolean;
  readonly stateful: boolean;
  readonly description: string;
  readonly config: ConfigMap;
  readonly devices: DeviceMap;
  readonly profiles: readonly string[];
  readonly createdAt: string;
  readonly lastUsedAt: string;
  readonly expiresAt: string;
}

export type NewSnapshot = Omit<SnapshotRecord, 'id'>;

export interface BackupRecord {
  readonly id: number;
  readonly instanceId: number;
  /** Without the instance's name. */
  readonly name: string;
  /** Its file in the directory of backups: never renamed. */
  readonly file: string;
  readonly instanceOnly: boolean;
  readonly optimized: boolean;
  readonly createdAt: string;
  readonly expiresAt: string;
}

/** A custom volume. */
export interface VolumeRecord {
  readonly id: number;
  readonly pool: string;
  readonly project: string;
  readonly name: string;
  /** In the pool: a rename leaves it. */
  readonly hostName: string;
  readonly description: string;
  readonly config: ConfigMap;
  readonly createdAt: string;
  /** What is being done in the pool: a daemon that was killed finishes or undoes it. Empty: nothing. */
  readonly pending: '' | 'create' | 'delete';
}

export interface VolumeSnapshotRecord {
  readonly id: number;
  readonly volumeId: number;
  /** Without the volume's name. */
  readonly name: string;
  readonly hostName: string;
  readonly description: string;
  readonly config: ConfigMap;
  readonly createdAt: string;
  readonly expiresAt: string;
  readonly pending: '' | 'create' | 'delete';
}

export interface ProfileRecord {
  readonly id: number;
  readonly project: string;
  readonly name: string;
  readonly description: string;
  readonly config: ConfigMap;
  readonly devices: DeviceMap;
}

export interface ImageRecord {
  readonly id: number;
  readonly project: string;
  readonly fingerprint: string;
  readonly filename: string;
  readonly sizeBytes: number;
  readonly isPublic: boolean;
  readonly autoUpdate: boolean;
  readonly cached: boolean;
  readonly architecture: string;
  readonly type: 'container';
  readonly properties: Readonly<Record<string, string>>;
  /** Where it came from, as LXD's API shows it; null for an upload. */
  readonly updateSource: Readonly<Record<string, string>> | null;
  readonly profiles: readonly string[];
  /** The project that has those profiles: another one may see the image with its own. */
  readonly profilesOf: string;
  readonly createdAt: string;
  readonly expiresAt: string;
  readonly lastUsedAt: string;
  readonly uploadedAt: string;
}

export interface AliasRecord {
  readonly name: string;
  readonly description: string;
  /** Fingerprint. */
  readonly target: string;
}

export interface PoolRecord {
  readonly id: number;
  readonly name: string;
  readonly driver: string;
  readonly description: string;
  readonly config: ConfigMap;
}

/** A managed network. */
export interface NetworkRecord {
  readonly id: number;
  readonly project: string;
  readonly name: string;
  readonly type: string;
  readonly description: string;
  readonly config: ConfigMap;
  /** What is being done on the host: a daemon that was killed undoes or finishes it. Empty: nothing. */
  readonly pending: '' | 'create' | 'delete';
}

export interface CertificateRecord {
  readonly fingerprint: string;
  readonly type: 'client' | 'metrics';
  readonly name: string;
  /** PEM. */
  readonly certificate: string;
  readonly restricted: boolean;
  readonly projects: readonly string[];
}

export interface WarningRecord {
  readonly uuid: string;
  readonly type: string;
  readonly entityUrl: string;
  readonly project: string;
  readonly message: string;
  readonly severity: 'low' | 'moderate' | 'high';
  readonly status: 'new' | 'acknowledged' | 'resolved';
  readonly count: number;
  readonly firstSeenAt: string;
  readonly lastSeenAt: string;
}
