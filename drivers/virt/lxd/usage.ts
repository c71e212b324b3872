// What a guest has used, from the state that the engine tells.
import type { InstanceState, InstanceStateNetwork } from '#src/client/wire.ts';
import type { GuestUsage, NicUsage } from '../driver.ts';

export function usageOf(state: InstanceState): GuestUsage {
  const interfaces = Object.entries(state.network ?? {}).filter(([, { type }]) => type !== 'loopback');
  return {
    cpuNanoseconds: state.cpu?.usage ?? 0,
    memoryBytes: state.memory?.['usage'] ?? 0,
    processes: Math.max(0, state.processes),
    // Some storage drivers tell no usage: LXD leaves the disk out, or says -1.
    diskBytes: known(state.disk?.['root']?.usage),
    nics: interfaces.map(([name, network]) => nicUsage(name, network)),
  };
}

function known(value: number | undefined): number | null {
  return value === undefined || value < 0 ? null : value;
}

function nicUsage(name: string, { hwaddr, counters = {} }: InstanceStateNetwork): NicUsage {
  return {
    name,
    macAddress: hwaddr,
    receivedBytes: counters['bytes_received'] ?? 0,
    receivedPackets: counters['packets_received'] ?? 0,
    sentBytes: counters['bytes_sent'] ?? 0,
    sentPackets: counters['packets_sent'] ?? 0,
  };
}
