// The NUMA topology of the host for ComputeNode.numa_topology: what the scheduler's NUMATopologyFilter fits guests into.
import { createObject } from '#src/nova/objects/object.ts';
import type { HostFacts } from '#drivers/virt/driver.ts';
import { type CpuSets, sharedCpus } from './cpu-sets.ts';
import { nodesOf } from './pinning.ts';

/** Text as Nova keeps it; null: no guest here has processors of its own, and nothing is to be fitted. */
export function numaTopology(facts: HostFacts, sets: CpuSets, pinned: ReadonlySet<number>): string | null {
  if (sets.dedicated === null) return null;
  const nodes = nodesOf(facts);
  const shared = new Set(sharedCpus(sets, facts));
  const dedicated = new Set(sets.dedicated);
  const cells = nodes.map((node) => {
    const own = facts.cpus.filter((cpu) => cpu.node === node).map(({ id }) => id);
    return createObject('NUMACell', {
      id: node,
      cpuset: new Set(own.filter((id) => shared.has(id))),
      pcpuset: new Set(own.filter((id) => dedicated.has(id))),
      memory: Math.floor(facts.memoryMib / nodes.length),
      cpu_usage: own.filter((id) => pinned.has(id)).length,
      memory_usage: 0,
      pinned_cpus: new Set(own.filter((id) => pinned.has(id))),
      siblings: [],
      mempages: [],
      network_metadata: createObject('NetworkMetadata', { physnets: new Set<string>(), tunneled: false }),
      socket: null,
    });
  });
  const topology = createObject('NUMATopology', { cells });
  topology.resetChanges();
  return JSON.stringify(topology.toPrimitive());
}
