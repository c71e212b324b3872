// The host that the driver in memory says it runs on.
import type { HostFacts, VirtInfo, SpawnFlavor } from '../driver.ts';

export interface FakeOptions {
  /** hypervisor_hostname. */
  readonly nodeName: string;
  readonly vcpus?: number;
  readonly memoryMib?: number;
  readonly diskGib?: number;
  /** How long a container takes to start or to shut down. */
  readonly delayMs?: number;
}

export function fakeFacts(options: Required<FakeOptions>, flavors: readonly SpawnFlavor[]): HostFacts {
  const { nodeName, vcpus, memoryMib, diskGib } = options;
  return {
    hypervisorHostname: nodeName,
    hypervisorVersion: 1_000_000,
    architecture: 'x86_64',
    vcpus,
    cpus: Array.from({ length: vcpus }, (_cpu, id) => ({ id, node: 0 })),
    memoryMib,
    memoryUsedMib: flavors.reduce((sum, flavor) => sum + flavor.memoryMib, 0),
    diskGib,
    diskUsedGib: flavors.reduce((sum, flavor) => sum + flavor.rootGib, 0),
    cpuInfo: JSON.stringify({ arch: 'x86_64', model: 'fake', vendor: 'fake', topology: {}, features: [] }),
    uptime: 'up 1 day, 0:00, load average: 0.00, 0.00, 0.00',
  };
}

export const FAKE_INFO: VirtInfo = {
  name: 'fake',
  hypervisorType: 'fake',
  capabilities: new Set([
    'supports_evacuate',
    'supports_extend_volume',
    'supports_multiattach',
    'supports_device_tagging',
    'supports_tagged_attach_interface',
    'supports_tagged_attach_volume',
  ]),
  diskFormats: ['raw'],
};
