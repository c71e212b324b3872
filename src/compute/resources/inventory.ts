// The inventory of the root provider: what the host offers, less what is kept for itself (contract section 4.5).
import type { Inventory } from '#src/openstack/types.ts';
import type { HostFacts } from '#drivers/virt/driver.ts';
import type { ResourcesConfig } from '../config/config.ts';
import { sharedCpus } from './cpu-sets.ts';

export type Inventories = Readonly<Record<string, Inventory>>;

interface Amount {
  readonly total: number;
  readonly reserved: number;
  /** Of the configuration; it wins when set. */
  readonly fixedRatio: number | null;
  readonly initialRatio: number;
}

/** `present` tells the ratios that an operator may have set through Placement's API. A class of total 0 is left out. */
export function wantedInventories(facts: HostFacts, config: ResourcesConfig, present: Inventories): Inventories {
  const amounts: Readonly<Record<string, Amount>> = {
    VCPU: {
      total:
        config.cpuSets.dedicated === null && config.cpuSets.shared === null
          ? facts.vcpus
          : sharedCpus(config.cpuSets, facts).length,
      reserved: config.reservedHostCpus,
      fixedRatio: config.cpuAllocationRatio,
      initialRatio: config.initialCpuAllocationRatio,
    },
    // one guest each
    PCPU: { total: config.cpuSets.dedicated?.length ?? 0, reserved: 0, fixedRatio: 1, initialRatio: 1 },
    MEMORY_MB: {
      total: facts.memoryMib,
      reserved: config.reservedHostMemoryMib,
      fixedRatio: config.ramAllocationRatio,
      initialRatio: config.initialRamAllocationRatio,
    },
    DISK_GB: {
      total: facts.diskGib,
      reserved: Math.ceil(config.reservedHostDiskMib / 1024),
      fixedRatio: config.diskAllocationRatio,
      initialRatio: config.initialDiskAllocationRatio,
    },
  };
  const offered = Object.entries(amounts).filter(([, { total }]) => total > 0);
  return Object.fromEntries(offered.map(([name, amount]) => [name, inventory(amount, present[name])]));
}

function inventory({ total, reserved, fixedRatio, initialRatio }: Amount, present: Inventory | undefined): Inventory {
  return {
    total,
    // Placement refuses to keep back more than there is
    reserved: Math.min(reserved, total),
    minUnit: 1,
    maxUnit: total,
    stepSize: 1,
    allocationRatio: fixedRatio ?? present?.allocationRatio ?? initialRatio,
  };
}

export function sameInventories(a: Inventories, b: Inventories): boolean {
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((name) => same(a[name], b[name]));
}

function same(a: Inventory | undefined, b: Inventory | undefined): boolean {
  if (!a || !b) return a === b;
  return (Object.keys(a) as (keyof Inventory)[]).every((key) => a[key] === b[key]);
}
