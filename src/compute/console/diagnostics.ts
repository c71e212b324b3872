// get_diagnostics and get_instance_diagnostics: what a running guest has used (section 5.15).
import { createObject, type NovaObject } from '#src/nova/objects/object.ts';
import { kindOf } from '#src/lib/errors.ts';
import { novaException } from '#src/nova/exceptions.ts';
import { POWER_STATES } from '#src/nova/states.ts';
import type { GuestUsage, VirtDriver } from '#drivers/virt/driver.ts';

type Instance = NovaObject<'Instance'>;

const KIB = 1024;
/** The enumeration of drivers is closed and has no containers in it; of its members this is the one that knew LXC. */
const DRIVER = 'libvirt';
const HYPERVISOR = 'lxd';

/** The form of microversions before 2.48, with libvirt's names: nanoseconds, KiB, bytes, packets. */
export async function legacyDiagnostics(
  virt: VirtDriver,
  instance: Instance,
  signal: AbortSignal,
): Promise<Readonly<Record<string, number>>> {
  const usage = await usageOf(virt, instance, signal);
  const nics = usage.nics.flatMap(({ name, receivedBytes, receivedPackets, sentBytes, sentPackets }) => [
    [`${name}_rx`, receivedBytes],
    [`${name}_rx_packets`, receivedPackets],
    [`${name}_tx`, sentBytes],
    [`${name}_tx_packets`, sentPackets],
  ]);
  return {
    cpu0_time: usage.cpuNanoseconds,
    memory: (instance.get('memory_mb') ?? 0) * KIB,
    'memory-actual': Math.round(usage.memoryBytes / KIB),
    processes: usage.processes,
    ...(usage.diskBytes !== null && { root_used: usage.diskBytes }),
    ...Object.fromEntries(nics),
  };
}

/** The CPUs of a container are not told apart: their time is told as that of the first. */
export async function diagnostics(
  virt: VirtDriver,
  instance: Instance,
  signal: AbortSignal,
): Promise<NovaObject<'Diagnostics'>> {
  const usage = await usageOf(virt, instance, signal);
  return createObject('Diagnostics', {
    state: 'running',
    driver: DRIVER,
    hypervisor: HYPERVISOR,
    hypervisor_os: 'linux',
    uptime: null,
    config_drive: instance.find('config_drive') === 'True',
    memory_details: createObject('MemoryDiagnostics', {
      maximum: instance.get('memory_mb') ?? null,
      used: Math.round(usage.memoryBytes / KIB / KIB),
    }),
    cpu_details: [createObject('CpuDiagnostics', { id: 0, time: usage.cpuNanoseconds, utilisation: null })],
    nic_details: usage.nics.map((nic) =>
      createObject('NicDiagnostics', {
        mac_address: nic.macAddress,
        rx_octets: nic.receivedBytes,
        rx_packets: nic.receivedPackets,
        tx_octets: nic.sentBytes,
        tx_packets: nic.sentPackets,
      }),
    ),
    // engines count no traffic of disks
    disk_details: [],
    num_cpus: instance.get('vcpus') ?? 0,
    num_nics: usage.nics.length,
    num_disks: 0,
  });
}

async function usageOf(virt: VirtDriver, instance: Instance, signal: AbortSignal): Promise<GuestUsage> {
  const uuid = instance.get('uuid');
  try {
    if ((await virt.powerState(uuid, signal)) === POWER_STATES.running) return await virt.usage(uuid, signal);
  } catch (error) {
    if (kindOf(error) !== 'conflict' && kindOf(error) !== 'not_found') throw error;
  }
  const state = instance.get('power_state') ?? POWER_STATES.nostate;
  const params = { instance_uuid: uuid, attr: 'power state', state, method: 'get_diagnostics' };
  throw novaException('InstanceInvalidState', params);
}
