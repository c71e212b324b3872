// What the LXD driver is configured with and given.
import type { Endpoint } from '#src/client/transport.ts';
import type { Host } from '#src/host/host.ts';
import type { Log } from '#src/lib/log.ts';
import type { FlavorPolicy } from './extra-specs.ts';

/** Where the engine is; for who configures the driver. */
export type LxdEndpoint = Endpoint;

export interface LxdDriverOptions {
  readonly endpoint: Endpoint;
  /** Project of the engine that holds our instances. */
  readonly project?: string;
  /** hypervisor_hostname; absent: the engine's own server name. */
  readonly nodeName?: string;
  /** Folder of this machine for what instances have beside the engine; nobody else writes there. */
  readonly stateFolder: string;
  /** Pool of the root disks; null: that of the default profile, else the only pool. */
  readonly storagePool: string | null;
  /** Profiles of every instance, beneath its own settings. */
  readonly profiles: readonly string[];
  /** Whether root disks get the flavor's size; auto: where the engine can hold them to it. */
  readonly rootQuota: 'auto' | 'always' | 'never';
  /** Instances reach Nova's metadata service: cloud-init is given a sign to look for it. */
  readonly metadataService: boolean;
  /** Config drives are block devices of their guests as well. */
  readonly configDriveDisk: boolean;
  /** Makes their images. */
  readonly mkisofsCommand: string;
  /** What flavors may demand of containers. */
  readonly policy: FlavorPolicy;
  /** Guests may be suspended with their memory on disk: CRIU, as the host's root, reads and makes their processes. */
  readonly allowSuspendToDisk: boolean;
  /** HOST:PORT at which other hosts fetch guests from the engine; null: `myIp`, if the engine listens there. */
  readonly migrationAddress: string | null;
  /** Address of this host. */
  readonly myIp?: string;
  /** For all of the data of one guest. */
  readonly migrationTimeoutMs: number;
  /** Largest virtual size of a disk image. */
  readonly maxDiskImageGib: number;
  readonly requestTimeoutMs: number;
  readonly imageTimeoutMs: number;
  readonly spawnTimeoutMs: number;
}

export const DEFAULT_OPTIONS = {
  storagePool: null,
  profiles: [],
  rootQuota: 'auto',
  metadataService: true,
  configDriveDisk: false,
  mkisofsCommand: 'genisoimage',
  policy: { allowNesting: true, allowPrivileged: false },
  allowSuspendToDisk: false,
  migrationAddress: null,
  migrationTimeoutMs: 14_400_000,
  maxDiskImageGib: 100,
  requestTimeoutMs: 60_000,
  imageTimeoutMs: 3_600_000,
  spawnTimeoutMs: 600_000,
} as const satisfies Omit<LxdDriverOptions, 'endpoint' | 'stateFolder'>;

export interface LxdDriverContext {
  readonly options: LxdDriverOptions;
  readonly log: Log;
  /** This machine: unpacks the heads of xz and bzip2 images to look at them, and reads disk images. */
  readonly host: Host;
}
