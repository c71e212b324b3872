// An instance of the driver in memory; tests read and change it.
import type { GuestData, GuestVolume, PowerState, SpawnNic, SpawnSpec, VirtInstance } from '../driver.ts';
import { freeName } from '../nic-names.ts';

export interface FakeInstance {
  spec: SpawnSpec;
  nics: readonly SpawnNic[];
  volumes: readonly GuestVolume[];
  /** What it was told and given. */
  guest: GuestData | undefined;
  powerState: PowerState;
  console: string;
  /** Its memory is on disk. */
  isKept?: boolean;
  /** What it stands for. */
  rescued?: FakeInstance;
  /** Fetched from another engine and not adopted yet. */
  isArriving?: boolean;
}

export function seenFromOutside([uuid, instance]: readonly [string, FakeInstance]): VirtInstance {
  const { spec, powerState, isArriving = false } = instance;
  return { uuid, name: spec.name, powerState, isArriving };
}

/** One with the same MAC address is replaced. */
export function withNic(nics: readonly SpawnNic[], nic: SpawnNic): readonly SpawnNic[] {
  const others = nics.filter(({ macAddress }) => macAddress !== nic.macAddress);
  const taken = others.map(({ guestInterface }) => guestInterface);
  return [...others, { ...nic, guestInterface: freeName(nic.guestInterface, taken) }];
}
