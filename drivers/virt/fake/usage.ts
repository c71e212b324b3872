// What a guest in memory seems to use.
import type { GuestUsage, SpawnNic, SpawnSpec } from '../driver.ts';

export function usageOf({ flavor }: SpawnSpec, nics: readonly SpawnNic[]): GuestUsage {
  return {
    cpuNanoseconds: 1_500_000_000,
    memoryBytes: flavor.memoryMib * 2 ** 19,
    processes: 3,
    diskBytes: 1 << 20,
    nics: nics.map(({ guestInterface: name, macAddress }) => ({
      name,
      macAddress,
      receivedBytes: 2000,
      receivedPackets: 20,
      sentBytes: 1000,
      sentPackets: 10,
    })),
  };
}
