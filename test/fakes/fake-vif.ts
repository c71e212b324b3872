// A VIF driver that only remembers what is plugged.
import type { BoundVif, KnownVif, OvsVifOptions, VifDriver } from '#drivers/vif/driver.ts';
import type { SpawnNic } from '#drivers/virt/driver.ts';

export const TEST_VIF: BoundVif = {
  id: '6c3fc145-9975-4f08-a31e-e2d4faa97ab8',
  interfaceId: '6c3fc145-9975-4f08-a31e-e2d4faa97ab8',
  instanceUuid: '0d5f1a52-2c1c-4b0e-9d3a-1f2e3d4c5b6a',
  macAddress: 'fa:16:3e:9c:26:2c',
  type: 'ovs',
  networkId: '70515443-1811-448e-83a0-e3d8679a852f',
  bridge: null,
  mtu: 1450,
  details: {},
  rates: { inbound: null, outbound: null },
};

/** The defaults of [os_vif_ovs]. */
export const OVS_OPTIONS: OvsVifOptions = {
  connection: { timeoutSeconds: 120 },
  defaultMtu: 1500,
  isolates: false,
};

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

  async unplug(vif: KnownVif): Promise<void> {
    this.calls.push(`unplug ${vif.id}`);
    this.plugged.delete(vif.id);
  }
}
