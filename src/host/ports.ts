// What the host's interfaces do with traffic: how fast they send, and how they behave in their bridge.

export interface BridgeVlan {
  readonly id: number;
  /** What comes in untagged belongs to it, and what belongs to it goes out untagged. */
  readonly untagged: boolean;
}

/** All names are of the daemon's own network namespace. Failed changes reject with KernelError. */
export interface Ports {
  /** Limits what the interface sends, at once and in place of an earlier limit; null: no limit any more. */
  setRate(name: string, bitsPerSecond: number | null): Promise<void>;
  /** Ports of a bridge that are isolated do not reach each other. */
  setIsolated(name: string, isolated: boolean): Promise<void>;
  /** Whether somebody on the network of the interface answers for the address; asked once (ARP, neighbour solicitation). */
  isTaken(name: string, address: string, waitMs: number): Promise<boolean>;
  /** Whether the checksums of what it sends are left to who gets that. */
  leaveChecksums(name: string, leaves: boolean): Promise<void>;
  addVlan(name: string, vlan: BridgeVlan): Promise<void>;
  removeVlan(name: string, id: number): Promise<void>;
}
