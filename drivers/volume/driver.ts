// The contract of a volume driver: makes a volume that Cinder offers a block device of this host, and takes that back.
import type { Host } from '#src/host/host.ts';
import type { Log } from '#src/lib/log.ts';

/**
 * How to reach a volume, as Cinder told it (`connection_info`). All that there is to know: Nova keeps it with the instance, so that
 * another process, after a crash, undoes what this one did.
 */
export interface VolumeConnection {
  /** driver_volume_type: nfs, local … */
  readonly type: string;
  /** It may hold secrets: never logged. */
  readonly data: Readonly<Record<string, unknown>>;
}

/** Errors: AppError 'invalid' for a connection that makes no sense, 'unsupported' for one that cannot be made here. */
export interface VolumeDriver {
  /** driver_volume_type values served. */
  readonly types: readonly string[];
  /**
   * Resolves with the path of the block device. Idempotent: connected already is success, with the same device. What it made is
   * undone when it fails.
   */
  connect(connection: VolumeConnection, signal: AbortSignal): Promise<string>;
  /** Absent is success. 'conflict' when something still uses the device; the next call goes on from there. */
  disconnect(connection: VolumeConnection, signal: AbortSignal): Promise<void>;
  /** The volume has grown: so does the device, under its users. Not connected: 'not_found'. */
  extend(connection: VolumeConnection, signal: AbortSignal): Promise<void>;
}

/** All that a volume driver is given. */
export interface VolumeContext {
  readonly host: Host;
  readonly log: Log;
  /** Where exports of file servers are mounted. */
  readonly mountFolder: string;
  /** Options of such mounts, comma separated; null: none. */
  readonly mountOptions: string | null;
}

export interface VolumeModule {
  readonly name: string;
  create(context: VolumeContext): VolumeDriver;
}
