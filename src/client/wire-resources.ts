// The bodies of images, profiles, storage and networks on the wire.

export type StringMap = Readonly<Record<string, string>>;
export type DeviceMap = Readonly<Record<string, StringMap>>;

export interface ImageAlias {
  readonly name: string;
  readonly description?: string;
}

export interface Image {
  readonly profiles?: readonly string[] | null;
  readonly fingerprint: string;
  readonly aliases: readonly ImageAlias[] | null;
  readonly architecture: string;
  readonly properties: StringMap | null;
  readonly public: boolean;
  readonly cached: boolean;
  readonly auto_update: boolean;
  readonly filename: string;
  readonly size: number;
  readonly type: string;
  readonly created_at: string;
  readonly expires_at: string;
  readonly last_used_at: string;
  readonly uploaded_at: string;
}

export interface ImageAliasEntry {
  readonly name: string;
  readonly description: string;
  readonly target: string;
  readonly type: string;
}

export interface ProfilePut {
  readonly config?: StringMap;
  readonly devices?: DeviceMap;
  readonly description?: string;
}

export interface Profile {
  readonly name: string;
  readonly description: string;
  readonly config: StringMap;
  readonly devices: DeviceMap;
  readonly used_by?: readonly string[] | null;
}

export interface StoragePool {
  readonly name: string;
  readonly driver: string;
  readonly description: string;
  readonly status: string;
  readonly config: StringMap;
  readonly used_by: readonly string[] | null;
  /** Told by lighterd alone: the pool holds roots to their size. */
  readonly quotas?: boolean;
}

export interface StoragePoolResources {
  readonly space: { readonly total: number; readonly used: number };
  readonly inodes: { readonly total: number; readonly used: number };
}

export interface Network {
  readonly name: string;
  readonly type: string;
  readonly description: string;
  readonly managed: boolean;
  readonly status: string;
  readonly config: StringMap;
  readonly used_by: readonly string[] | null;
}

export interface ImageMetadata {
  readonly architecture: string;
  /** Unix time. */
  readonly creation_date: number;
  readonly expiry_date: number;
  readonly properties: StringMap | null;
  readonly templates: Readonly<Record<string, { readonly properties?: StringMap | null }>> | null;
}

export interface Certificate {
  readonly name: string;
  readonly type: string;
  readonly restricted: boolean;
  readonly projects: readonly string[] | null;
  /** PEM. */
  readonly certificate: string;
  readonly fingerprint: string;
}

export interface ProjectInfo {
  readonly name: string;
  readonly description: string;
  readonly config: StringMap;
  readonly used_by: readonly string[] | null;
}

/** Capital letters as on the wire; a limit of -1 is none. */
export interface ProjectState {
  readonly resources: Readonly<Record<string, { readonly Limit: number; readonly Usage: number }>>;
}

export interface Warning {
  readonly uuid: string;
  readonly type: string;
  readonly status: string;
  readonly severity: string;
  readonly count: number;
  readonly first_seen_at: string;
  readonly last_seen_at: string;
  readonly last_message: string;
  readonly location: string;
  readonly project: string;
  readonly entity_url: string;
}

export interface StorageVolume {
  readonly name: string;
  /** container, virtual-machine, custom or image. */
  readonly type: string;
  readonly content_type: string;
  readonly description: string;
  readonly config: StringMap;
  readonly used_by: readonly string[] | null;
  readonly location: string;
  readonly project?: string;
  readonly created_at?: string;
}

export interface StorageVolumeSnapshot {
  readonly name: string;
  readonly description: string;
  readonly created_at?: string;
  readonly expires_at?: string | null;
}

export interface StorageVolumeState {
  readonly usage?: { readonly used: number; readonly total?: number } | null;
}

export interface NetworkLease {
  readonly hostname: string;
  readonly hwaddr: string;
  readonly address: string;
  readonly type: string;
}

export interface NetworkState {
  readonly addresses:
    | readonly { readonly family: string; readonly address: string; readonly netmask: string; readonly scope: string }[]
    | null;
  readonly counters?: Readonly<Record<string, number>>;
  readonly hwaddr: string;
  readonly mtu: number;
  readonly state: string;
  readonly type: string;
  readonly bridge?: {
    readonly id: string;
    readonly stp: boolean;
    readonly forward_delay: number;
    readonly vlan_default: number;
    readonly vlan_filtering: boolean;
    readonly upper_devices: readonly string[] | null;
  } | null;
}
