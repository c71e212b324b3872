// What compute/ sees of the other services' REST APIs (nova-compute-contract section 8).
import type { Readable } from 'node:stream';

/** Whose rights a request uses: the user's token of the RPC context, or the service user of the client's own section. */
export type Credentials =
  | { readonly kind: 'service'; readonly requestId: string }
  | {
      readonly kind: 'user';
      readonly token: string;
      readonly requestId: string;
      /** `_context_service_catalog`; absent: the service user's catalogue decides. */
      readonly catalog?: readonly unknown[];
    };

export interface Allocations {
  readonly allocations: Readonly<Record<string, { readonly resources: Readonly<Record<string, number>> }>>;
  readonly projectId?: string;
  readonly userId?: string;
  readonly consumerGeneration?: number | null;
}

export interface ResourceProvider {
  readonly uuid: string;
  readonly name: string;
  readonly generation: number;
  readonly parentProviderUuid: string | null;
}

export interface Inventory {
  readonly total: number;
  readonly reserved: number;
  readonly minUnit: number;
  readonly maxUnit: number;
  readonly stepSize: number;
  readonly allocationRatio: number;
}

/** Errors: AppError 'conflict' on 409 with `code` of the body in OpenStackError, 'not_found' on 404, 'unavailable' otherwise. */
export interface Placement {
  getProviderTree(rootUuid: string, signal?: AbortSignal): Promise<readonly ResourceProvider[]>;
  /** Returns the created provider. */
  createProvider(uuid: string, name: string, signal?: AbortSignal): Promise<ResourceProvider>;
  deleteProvider(uuid: string, signal?: AbortSignal): Promise<void>;
  getInventories(
    uuid: string,
    signal?: AbortSignal,
  ): Promise<{ readonly generation: number; readonly inventories: Readonly<Record<string, Inventory>> }>;
  /** Returns the new generation. */
  putInventories(
    uuid: string,
    generation: number,
    inventories: Readonly<Record<string, Inventory>>,
    signal?: AbortSignal,
  ): Promise<number>;
  getTraits(
    uuid: string,
    signal?: AbortSignal,
  ): Promise<{ readonly generation: number; readonly traits: readonly string[] }>;
  putTraits(uuid: string, generation: number, traits: readonly string[], signal?: AbortSignal): Promise<number>;
  /** The standard or custom traits among `names` that this Placement knows. */
  knownTraits(names: readonly string[], signal?: AbortSignal): Promise<ReadonlySet<string>>;
  createCustomTrait(name: string, signal?: AbortSignal): Promise<void>;
  getAggregates(
    uuid: string,
    signal?: AbortSignal,
  ): Promise<{ readonly generation: number; readonly aggregates: readonly string[] }>;
  /** Consumers that have allocations on a provider. */
  getProviderAllocations(
    uuid: string,
    signal?: AbortSignal,
  ): Promise<Readonly<Record<string, { readonly resources: Readonly<Record<string, number>> }>>>;
  getAllocations(consumer: string, signal?: AbortSignal): Promise<Allocations>;
  /** Non-forced removal: GET, then PUT empty with the generation; rejects with 'conflict' when it changed meanwhile. */
  removeAllocations(consumer: string, signal?: AbortSignal): Promise<void>;
  /** Forced removal (DELETE). False when there were none. */
  deleteAllocations(consumer: string, signal?: AbortSignal): Promise<boolean>;
  /**
   * Takes one provider out of a consumer's allocations and leaves the others (an evacuated instance's source); nothing to
   * do is success. Rejects with 'conflict' when the allocations changed meanwhile.
   */
  removeFromAllocations(consumer: string, providerUuid: string, signal?: AbortSignal): Promise<void>;
  /** Moves all allocations of one consumer to another in one request (section 5.7). */
  moveAllocations(source: string, target: string, signal?: AbortSignal): Promise<void>;
}

/** Bodies as Neutron has them, snake_case and all: they are data of the wire, passed on unchanged. */
export type NeutronPort = Readonly<Record<string, unknown>> & { readonly id: string; readonly network_id: string };
export type NeutronNetwork = Readonly<Record<string, unknown>> & { readonly id: string; readonly name: string };
export type NeutronSubnet = Readonly<Record<string, unknown>> & { readonly id: string; readonly network_id: string };
export type NeutronQuery = Readonly<Record<string, string | readonly string[] | boolean>>;

/** Errors: OpenStackError with `status` and Neutron's `type` (IpAddressInUse, OverQuota …). */
export interface Neutron {
  /** Extension aliases; cached for extension_sync_interval. */
  extensions(credentials: Credentials, signal?: AbortSignal): Promise<ReadonlySet<string>>;
  listPorts(credentials: Credentials, query: NeutronQuery, signal?: AbortSignal): Promise<readonly NeutronPort[]>;
  getPort(credentials: Credentials, id: string, signal?: AbortSignal): Promise<NeutronPort>;
  createPort(
    credentials: Credentials,
    port: Readonly<Record<string, unknown>>,
    signal?: AbortSignal,
  ): Promise<NeutronPort>;
  updatePort(
    credentials: Credentials,
    id: string,
    changes: Readonly<Record<string, unknown>>,
    signal?: AbortSignal,
  ): Promise<NeutronPort>;
  /** 404 is success. */
  deletePort(credentials: Credentials, id: string, signal?: AbortSignal): Promise<void>;
  listNetworks(credentials: Credentials, query: NeutronQuery, signal?: AbortSignal): Promise<readonly NeutronNetwork[]>;
  listSubnets(credentials: Credentials, query: NeutronQuery, signal?: AbortSignal): Promise<readonly NeutronSubnet[]>;
  listFloatingIps(
    credentials: Credentials,
    query: NeutronQuery,
    signal?: AbortSignal,
  ): Promise<readonly Readonly<Record<string, unknown>>[]>;
  listSecurityGroups(
    credentials: Credentials,
    query: NeutronQuery,
    signal?: AbortSignal,
  ): Promise<readonly Readonly<Record<string, unknown>>[]>;
  getAutoAllocatedTopology(credentials: Credentials, projectId: string, signal?: AbortSignal): Promise<string>;
}

export interface GlanceImage {
  readonly id: string;
  readonly name: string | null;
  readonly status: string;
  readonly sizeBytes: number | null;
  readonly diskFormat: string | null;
  readonly containerFormat: string | null;
  readonly minDiskGib: number;
  readonly minRamMib: number;
  readonly checksum: string | null;
  readonly hashAlgorithm: string | null;
  readonly hashValue: string | null;
  /** All other attributes, as strings. */
  readonly properties: Readonly<Record<string, string>>;
}

export interface GlanceImageChanges {
  readonly diskFormat?: string;
  readonly containerFormat?: string;
  readonly properties?: Readonly<Record<string, string>>;
}

export interface Glance {
  getImage(credentials: Credentials, id: string, signal?: AbortSignal): Promise<GlanceImage>;
  /**
   * The image's bytes, streamed. The stream fails with AppError 'invalid' at its end when the bytes do not match
   * os_hash_value (or the md5 checksum), and before any byte when the image has no data. `image` saves the look-up.
   */
  download(credentials: Credentials, image: GlanceImage, signal?: AbortSignal): Promise<Readable>;
  /** Images whose properties have these values, newest first; all pages. */
  listImages(
    credentials: Credentials,
    properties: Readonly<Record<string, string>>,
    signal?: AbortSignal,
  ): Promise<readonly GlanceImage[]>;
  /** Sets what differs from `image`, which is as last read; no request when nothing does. */
  updateImage(
    credentials: Credentials,
    image: GlanceImage,
    changes: GlanceImageChanges,
    signal?: AbortSignal,
  ): Promise<void>;
  /** Sends the bytes of a queued image as they come; `content` is destroyed in any case. Never repeated. */
  upload(credentials: Credentials, id: string, content: Readable, signal?: AbortSignal): Promise<void>;
  /** 404 is success. */
  deleteImage(credentials: Credentials, id: string, signal?: AbortSignal): Promise<void>;
}

export interface CinderVolume {
  readonly id: string;
  readonly status: string;
  readonly sizeGib: number;
  readonly multiattach: boolean;
  readonly encrypted: boolean;
  readonly availabilityZone: string | null;
  readonly volumeType: string | null;
  /** Of a move between back ends, told to administrators: `migrating`, `success` …; null: none. */
  readonly migrationStatus?: string | null;
  /** What Cinder knows of the image that the volume was made from; its owner may change it. Absent: it was made from none. */
  readonly imageMetadata?: Readonly<Record<string, string>>;
}

export interface NewVolume {
  readonly sizeGib: number;
  readonly name: string;
  readonly description: string;
  /** What it is filled with; both null: nothing. */
  readonly snapshotId: string | null;
  readonly imageId: string | null;
  /** null: Cinder's own choice. */
  readonly volumeType: string | null;
  readonly availabilityZone: string | null;
}

export interface CinderAttachment {
  readonly id: string;
  /** How a host reaches the volume; empty before an update with a connector. It may hold secrets: never logged. */
  readonly connectionInfo: Readonly<Record<string, unknown>>;
}

/** Errors: OpenStackError with `status`. */
export interface Cinder {
  getVolume(credentials: Credentials, id: string, signal?: AbortSignal): Promise<CinderVolume>;
  createVolume(credentials: Credentials, volume: NewVolume, signal?: AbortSignal): Promise<CinderVolume>;
  /** 404 is success. */
  deleteVolume(credentials: Credentials, id: string, signal?: AbortSignal): Promise<void>;
  /** Reserves a volume for an instance, connected from nowhere. Returns the attachment's id. */
  createAttachment(
    credentials: Credentials,
    of: { readonly volumeId: string; readonly instanceUuid: string },
    signal?: AbortSignal,
  ): Promise<string>;
  getAttachment(credentials: Credentials, id: string, signal?: AbortSignal): Promise<CinderAttachment>;
  /** Says from where the volume will be used. Asked again at once on 500 and 504. */
  updateAttachment(
    credentials: Credentials,
    id: string,
    connector: Readonly<Record<string, unknown>>,
    signal?: AbortSignal,
  ): Promise<CinderAttachment>;
  /** The volume is in use. */
  completeAttachment(credentials: Credentials, id: string, signal?: AbortSignal): Promise<void>;
  /** 404 is success. Asked again at once on 500 and 504. */
  deleteAttachment(credentials: Credentials, id: string, signal?: AbortSignal): Promise<void>;
  /** Begins to write an image over a volume that is reserved; nova-api hears of its end, and so does the instance's compute. */
  reimageVolume(
    credentials: Credentials,
    of: { readonly volumeId: string; readonly imageId: string },
    signal?: AbortSignal,
  ): Promise<void>;
  /** A detachment that was begun is given up: `detaching` becomes `in-use` again. */
  rollDetaching(credentials: Credentials, volumeId: string, signal?: AbortSignal): Promise<void>;
  /** Ends a move of a volume between back ends that Cinder had us make. Resolves with the id that the volume has from now on. */
  completeMigration(
    credentials: Credentials,
    of: { readonly volumeId: string; readonly newVolumeId: string; readonly isFailed: boolean },
    signal?: AbortSignal,
  ): Promise<string>;
}
