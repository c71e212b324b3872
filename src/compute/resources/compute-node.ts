// The ComputeNode record of this host: found or made, filled, saved when something changed (contract section 4.4).
import { AppError } from '#src/lib/errors.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { isNova } from '#src/nova/exceptions.ts';
import { createObject, expectObject, type NovaObject } from '#src/nova/objects/object.ts';
import type { ObjectFields } from '#src/nova/objects/table.ts';
import type { Conductor } from '#src/nova/types.ts';
import type { HostFacts } from '#drivers/virt/driver.ts';
import type { ResourcesConfig } from '../config/config.ts';
import type { HostUsage } from './usage.ts';
import { sharedCpus } from './cpu-sets.ts';
import { numaTopology } from './numa-topology.ts';

export type ComputeNode = NovaObject<'ComputeNode'>;

export interface NodeIdentity {
  /** compute_id: uuid of the ComputeNode and of the resource provider. */
  readonly uuid: string;
  readonly host: string;
  readonly hostIp: string;
}

export interface NodeContents {
  readonly facts: HostFacts;
  readonly usage: HostUsage;
  readonly serviceId: number | undefined;
  readonly hypervisorType: string;
  /** Processors that are some guest's alone. */
  readonly pinnedCpus: ReadonlySet<number>;
}

/** Undefined when there is none; a deleted one is found too, and comes back to life. */
export async function findComputeNode(
  conductor: Conductor,
  context: RequestContext,
  uuid: string,
): Promise<ComputeNode | undefined> {
  const call = { object: 'ComputeNode', method: 'get_by_uuid', args: [uuid] } as const;
  const withDeleted = context.withReadDeleted('yes');
  try {
    const node = expectObject(await conductor.classMethod(withDeleted, call), 'ComputeNode');
    if (node.find('deleted') !== true) return node;
    // whoever deleted it took its host out of the cell as well: it is to be discovered anew
    node.set('deleted', false).set('deleted_at', null).set('mapped', 0);
    // at once: every later save is in a context for which it is not there
    await conductor.save(withDeleted, node);
    return node;
  } catch (error) {
    if (isNova(error, 'ComputeHostNotFound')) return undefined;
    throw error;
  }
}

export async function createComputeNode(
  conductor: Conductor,
  context: RequestContext,
  { uuid, host }: NodeIdentity,
  fields: Partial<ObjectFields['ComputeNode']>,
): Promise<ComputeNode> {
  const node = createObject('ComputeNode', { uuid, host, ...fields });
  try {
    await conductor.objectMethod(context, node, { method: 'create' });
  } catch (error) {
    if (!isNova(error, 'DuplicateRecord')) throw error;
    const reason = `another compute node of host ${host} is named ${fields.hypervisor_hostname}; its compute_id file is lost`;
    throw new AppError('conflict', reason, { cause: error });
  }
  return node;
}

/** Every field that the compute sets, from the driver's facts and the tracker's sums. */
export function nodeFields(
  { host, hostIp }: NodeIdentity,
  { facts, usage, serviceId, hypervisorType, pinnedCpus }: NodeContents,
  config: ResourcesConfig,
): Partial<ObjectFields['ComputeNode']> {
  return {
    host,
    ...(serviceId !== undefined && { service_id: serviceId }),
    host_ip: hostIp,
    hypervisor_hostname: facts.hypervisorHostname,
    hypervisor_type: hypervisorType,
    hypervisor_version: facts.hypervisorVersion,
    cpu_info: facts.cpuInfo,
    vcpus: offeredCpus(facts, config),
    memory_mb: facts.memoryMib,
    local_gb: facts.diskGib,
    supported_hv_specs: [
      unchanged(createObject('HVSpec', { arch: facts.architecture, hv_type: hypervisorType, vm_mode: 'exe' })),
    ],
    numa_topology: numaTopology(facts, config.cpuSets, pinnedCpus),
    metrics: '[]',
    pci_device_pools: unchanged(createObject('PciDevicePoolList', { objects: [] })),
    cpu_allocation_ratio: config.cpuAllocationRatio ?? config.initialCpuAllocationRatio,
    ram_allocation_ratio: config.ramAllocationRatio ?? config.initialRamAllocationRatio,
    disk_allocation_ratio: config.diskAllocationRatio ?? config.initialDiskAllocationRatio,
    ...usageFields(facts, usage),
  };
}

function offeredCpus(facts: HostFacts, { cpuSets }: ResourcesConfig): number {
  if (cpuSets.dedicated === null && cpuSets.shared === null) return facts.vcpus;
  return sharedCpus(cpuSets, facts).length + (cpuSets.dedicated ?? []).length;
}

/** So that an equal object in the record does not look different. */
function unchanged<O extends NovaObject>(object: O): O {
  object.resetChanges();
  return object;
}

/** The part that changes when an instance comes or goes. */
export function usageFields(facts: HostFacts, usage: HostUsage): Partial<ObjectFields['ComputeNode']> {
  return {
    vcpus_used: usage.vcpus,
    memory_mb_used: usage.memoryMib,
    local_gb_used: usage.diskGib,
    free_ram_mb: facts.memoryMib - usage.memoryMib,
    free_disk_gb: facts.diskGib - usage.diskGib,
    disk_available_least: facts.diskGib - facts.diskUsedGib,
    running_vms: usage.runningVms,
    current_workload: usage.workload,
    stats: usage.stats,
  };
}

/** Only what differs becomes a change. */
export function assignFields(node: ComputeNode, fields: Partial<ObjectFields['ComputeNode']>): void {
  for (const [name, value] of Object.entries(fields)) {
    node.set(name as keyof ObjectFields['ComputeNode'], value);
  }
}
