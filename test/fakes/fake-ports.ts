// Ports whose changes are recorded as lines.
import type { BridgeVlan, Ports } from '#src/host/ports.ts';

export class FakePorts implements Ports {
  readonly #calls: string[];

  constructor(calls: string[]) {
    this.#calls = calls;
  }

  async setRate(name: string, bitsPerSecond: number | null): Promise<void> {
    this.#calls.push(`port ${name} rate ${bitsPerSecond}`);
  }

  async setIsolated(name: string, isolated: boolean): Promise<void> {
    this.#calls.push(`port ${name} isolated ${isolated}`);
  }

  async leaveChecksums(name: string, leaves: boolean): Promise<void> {
    this.#calls.push(`port ${name} leaves checksums ${leaves}`);
  }

  async isTaken(): Promise<boolean> {
    return false;
  }

  async addVlan(name: string, vlan: BridgeVlan): Promise<void> {
    this.#calls.push(`port ${name} vlan ${JSON.stringify(vlan)}`);
  }

  async removeVlan(name: string, id: number): Promise<void> {
    this.#calls.push(`port ${name} vlan remove ${id}`);
  }
}
