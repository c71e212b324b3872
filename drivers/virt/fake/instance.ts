// An instance of the driver in memory; tests read and change it.
import type { GuestData, GuestVolume, PowerState, SpawnNic, SpawnSpec } from '../driver.ts';

export interface FakeInstance {
  spec: SpawnSpec;
  nics: readonly SpawnNic[];
  volumes: readonly GuestVolume[];
  /** What it was told and given. */
  guest: GuestData | undefined;
  powerState: PowerState;
  console: string;
  /** What it stands for. */
  rescued?: FakeInstance;
  /** Fetched from another engine and not adopted yet. */
  isArriving?: boolean;
}
