// What clients ask of instances, read from their bodies by the API.
import type { ConfigMap, DeviceMap } from '../types.ts';

/** The part of an instance that clients may change. */
export interface InstanceContent {
  readonly architecture: string;
  readonly config: ConfigMap;
  readonly devices: DeviceMap;
  readonly ephemeral: boolean;
  readonly profiles: readonly string[];
  readonly description: string;
}

export interface InstanceSource {
  readonly type: string;
  readonly alias?: string;
  readonly fingerprint?: string;
  readonly properties?: Readonly<Record<string, string>>;
  /** copy: NAME or NAME/SNAPSHOT. */
  readonly source?: string;
  readonly project?: string;
  readonly instanceOnly?: boolean;
  /** copy: an existing target is brought up to date. */
  readonly refresh?: boolean;
  readonly allowInconsistent?: boolean;
  /** migration: pull, or push. */
  readonly mode?: string;
  readonly live?: boolean;
  /** migration, pull: the source's operation, and the secrets of its channels. */
  readonly operation?: string;
  readonly secrets?: Readonly<Record<string, string>>;
  /** migration: fingerprint of the image that the instance was made from. */
  readonly baseImage?: string;
  /** image: where to get it; absent or empty: here. */
  readonly server?: string;
  readonly protocol?: string;
  readonly certificate?: string;
  readonly secret?: string;
}

export interface NewInstanceRequest {
  /** Empty: one is made up. */
  readonly name: string;
  readonly architecture: string;
  readonly config: ConfigMap;
  readonly devices: DeviceMap;
  readonly ephemeral: boolean;
  /** Undefined: the image's, or "default". */
  readonly profiles?: readonly string[];
  readonly description: string;
  readonly source: InstanceSource;
  /** "c2-m4". */
  readonly instanceType: string;
  /** copy: with the state of what is copied, if it has one. */
  readonly stateful: boolean;
  readonly start: boolean;
}

export type StateAction = 'start' | 'stop' | 'restart' | 'freeze' | 'unfreeze';

export interface StateChange {
  readonly action: StateAction;
  /** Seconds; 0 kills, negative waits for ever. */
  readonly timeoutSeconds: number;
  readonly force: boolean;
  readonly stateful: boolean;
}
