// A VIF driver that only remembers what is plugged.
import type { BoundVif, VifDriver } from '#drivers/vif/driver.ts';
import type { SpawnNic } from '#drivers/virt/driver.ts';

export class FakeVif implements VifDriver {
  readonly types = ['bridge', 'ovs'];
  readonly plugged = new Map<string, SpawnNic>();
  readonly calls: string[] = [];
  /** Called when a VIF is plugged: the moment when a real agent sees it. */
  onPlug: (vif: BoundVif) => void = () => {};
  #failure: Error | undefined;

  failNext(error: Error): void {
    this.#failure = error;
  }

  async plug(vif: BoundVif, guestInterface: string): Promise<SpawnNic> {
    this.calls.push(`plug ${vif.id}`);
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure) throw failure;
    const nic: SpawnNic = {
      vifId: vif.id,
      macAddress: vif.macAddress,
      hostInterface: `tap${vif.id}`.slice(0, 14),
      guestInterface,
      ...(vif.mtu !== null && { mtu: vif.mtu }),
    };
    this.plugged.set(vif.id, nic);
    this.onPlug(vif);
    return nic;
  }

  async unplug(vif: BoundVif): Promise<void> {
    this.calls.push(`unplug ${vif.id}`);
    this.plugged.delete(vif.id);
  }
}
