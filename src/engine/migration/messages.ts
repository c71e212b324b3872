// The messages on the control channel of a migration (lxd-engine-contract section 2.9).
import { decode, encode, type Message, type MessageType } from './protobuf.ts';

/** How file systems are sent. */
export const FS = { rsync: 0, btrfs: 1, zfs: 2, rbd: 3, blockAndRsync: 4 } as const;
/** How the state of memory is sent. `none`: the source runs, but is copied without its memory. */
export const CRIU = { rsync: 0, phaul: 1, none: 2 } as const;
export const INDEX_HEADER_VERSION = 1;

export interface IdMapEntry {
  readonly isUid: boolean;
  readonly isGid: boolean;
  readonly hostId: number;
  readonly nsId: number;
  readonly size: number;
}

export interface Pair {
  readonly key: string;
  readonly value: string;
}

export interface SnapshotMessage {
  readonly name: string;
  readonly config: readonly Pair[];
  readonly profiles: readonly string[];
  readonly ephemeral: boolean;
  readonly devices: readonly { readonly name: string; readonly config: readonly Pair[] }[];
  readonly architecture: number;
  readonly stateful: boolean;
  /** Seconds since 1970. */
  readonly createdAt?: number;
  readonly lastUsedAt?: number;
  readonly expiresAt?: number;
}

export interface RsyncFeatures {
  readonly xattrs?: boolean;
  readonly delete?: boolean;
  readonly compress?: boolean;
  readonly bidirectional?: boolean;
}

export interface StreamFeatures {
  /** A JSON text goes before the streams. */
  readonly migrationHeader?: boolean;
}

export interface ZfsFeatures extends StreamFeatures {
  readonly compress?: boolean;
}

/** A snapshot that can be sent as a stream. */
export interface StreamPointMessage {
  readonly snapshot: string;
  readonly guid: string;
  /** idMapKey() of its files. */
  readonly owners: string;
}

export interface MigrationHeader {
  readonly fs: number;
  readonly criu?: number;
  readonly idmap: readonly IdMapEntry[];
  readonly snapshotNames: readonly string[];
  readonly snapshots: readonly SnapshotMessage[];
  readonly predump?: boolean;
  readonly rsyncFeatures?: RsyncFeatures;
  readonly refresh?: boolean;
  readonly zfsFeatures?: ZfsFeatures;
  readonly volumeSize?: number;
  readonly btrfsFeatures?: StreamFeatures;
  /** Ours, as the next; LXD passes over them. Offered by the source. */
  readonly streamPoints?: readonly StreamPointMessage[];
  /** Chosen by the target. */
  readonly streamBase?: string;
  readonly indexHeaderVersion?: number;
}

export interface MigrationControl {
  readonly success: boolean;
  readonly message?: string;
}

const IdMap: MessageType = {
  isUid: { number: 1, type: 'bool' },
  isGid: { number: 2, type: 'bool' },
  hostId: { number: 3, type: 'int' },
  nsId: { number: 4, type: 'int' },
  size: { number: 5, type: 'int' },
};
const Config: MessageType = { key: { number: 1, type: 'text' }, value: { number: 2, type: 'text' } };
const Device: MessageType = { name: { number: 1, type: 'text' }, config: { number: 2, type: Config, list: true } };
const Snapshot: MessageType = {
  name: { number: 1, type: 'text' },
  config: { number: 2, type: Config, list: true },
  profiles: { number: 3, type: 'text', list: true },
  ephemeral: { number: 4, type: 'bool' },
  devices: { number: 5, type: Device, list: true },
  architecture: { number: 6, type: 'int' },
  stateful: { number: 7, type: 'bool' },
  createdAt: { number: 8, type: 'int' },
  lastUsedAt: { number: 9, type: 'int' },
  expiresAt: { number: 10, type: 'int' },
};
const Rsync: MessageType = {
  xattrs: { number: 1, type: 'bool' },
  delete: { number: 2, type: 'bool' },
  compress: { number: 3, type: 'bool' },
  bidirectional: { number: 4, type: 'bool' },
};
const Zfs: MessageType = { compress: { number: 1, type: 'bool' }, migrationHeader: { number: 2, type: 'bool' } };
const Btrfs: MessageType = { migrationHeader: { number: 1, type: 'bool' } };
const StreamPoint: MessageType = {
  snapshot: { number: 1, type: 'text' },
  guid: { number: 2, type: 'text' },
  owners: { number: 3, type: 'text' },
};
const Header: MessageType = {
  fs: { number: 1, type: 'int' },
  criu: { number: 2, type: 'int' },
  idmap: { number: 3, type: IdMap, list: true },
  snapshotNames: { number: 4, type: 'text', list: true },
  snapshots: { number: 5, type: Snapshot, list: true },
  predump: { number: 7, type: 'bool' },
  rsyncFeatures: { number: 8, type: Rsync },
  refresh: { number: 9, type: 'bool' },
  zfsFeatures: { number: 10, type: Zfs },
  volumeSize: { number: 11, type: 'int' },
  btrfsFeatures: { number: 12, type: Btrfs },
  streamPoints: { number: 1000, type: StreamPoint, list: true },
  streamBase: { number: 1001, type: 'text' },
  indexHeaderVersion: { number: 13, type: 'int' },
};
const Control: MessageType = { success: { number: 1, type: 'bool' }, message: { number: 2, type: 'text' } };

export function encodeHeader(header: MigrationHeader): Buffer {
  return encode(Header, header as unknown as Message);
}

export function decodeHeader(bytes: Uint8Array): MigrationHeader {
  return { fs: FS.rsync, ...decode(Header, bytes) } as unknown as MigrationHeader;
}

export function encodeControl(control: MigrationControl): Buffer {
  return encode(Control, control as unknown as Message);
}

export function decodeControl(bytes: Uint8Array): MigrationControl {
  return { success: false, ...decode(Control, bytes) };
}
