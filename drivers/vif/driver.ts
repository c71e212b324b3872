// The contract of a VIF driver: makes a Neutron binding real on this host.
import type { Log } from '#src/lib/log.ts';
import type { Host } from '#src/host/host.ts';
import type { OvsConnection } from '#src/host/ovs.ts';
import type { SpawnNic } from '../virt/driver.ts';

/** One entry of the network info cache, decoded (nova-compute-contract section 3.6): enough to find what it has on this host. */
export interface KnownVif {
  readonly id: string;
  readonly macAddress: string;
  readonly type: string;
  readonly networkId: string;
  /** Bridge named by the network cache (brq…, br-int …), null when the binding names none. */
  readonly bridge: string | null;
  readonly mtu: number | null;
  readonly details: Readonly<Record<string, unknown>>;
}

export interface BoundVif extends KnownVif {
  readonly instanceUuid: string;
  /** By which users of Open vSwitch find the port: its own id as a rule. */
  readonly interfaceId: string;
  readonly rates: VifRates;
}

/** Limits of one direction; null: none. */
export interface FlowRate {
  /** A second, in the long run. */
  readonly averageBytes: number;
  /** A second, at any time. */
  readonly peakBytes: number | null;
  /** At once after a pause, as fast as the peak. */
  readonly burstBytes: number | null;
}

export interface VifRates {
  /** To the guest. */
  readonly inbound: FlowRate | null;
  readonly outbound: FlowRate | null;
}

export interface VifDriver {
  /** vif_type values served. */
  readonly types: readonly string[];
  /**
   * Makes the host's end as Neutron expects it, and the end for the container. Idempotent: what exists and is right stays.
   * Its rates hold from then on, also while the guest runs already; those of an earlier plug go.
   * Undone completely when it fails.
   */
  plug(vif: BoundVif, guestInterface: string, signal: AbortSignal): Promise<SpawnNic>;
  /** Absent is success. */
  unplug(vif: KnownVif, signal: AbortSignal): Promise<void>;
}

/** [os_vif_ovs] of nova.conf. */
export interface OvsVifOptions {
  readonly connection: OvsConnection;
  /** Of networks that have none. */
  readonly defaultMtu: number;
  /** New ports reach nobody until Neutron's agent has dealt with them. */
  readonly isolates: boolean;
}

export interface VifContext {
  readonly host: Host;
  readonly log: Log;
  readonly ovs: OvsVifOptions;
}

export interface VifModule {
  readonly name: string;
  create(context: VifContext): VifDriver;
}
