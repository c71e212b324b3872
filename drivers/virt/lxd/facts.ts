// What the engine's machine has, as Nova wants it.
import type { Endpoint } from '#src/client/transport.ts';
import type { Resources, Server, StoragePoolResources } from '#src/client/wire.ts';
import type { Host } from '#src/host/host.ts';
import type { HostFacts } from '../driver.ts';

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;

export interface FactSources {
  readonly nodeName: string;
  readonly server: Server;
  readonly resources: Resources;
  readonly pool: StoragePoolResources;
  readonly uptime: string;
}

export function hostFacts({ nodeName, server, resources, pool, uptime }: FactSources): HostFacts {
  return {
    hypervisorHostname: nodeName,
    hypervisorVersion: versionNumber(server.environment?.server_version ?? ''),
    architecture: resources.cpu.architecture,
    vcpus: resources.cpu.total,
    cpus: cpusOf(resources),
    memoryMib: Math.floor(resources.memory.total / MIB),
    memoryUsedMib: Math.ceil(resources.memory.used / MIB),
    diskGib: Math.floor(pool.space.total / GIB),
    diskUsedGib: Math.ceil(pool.space.used / GIB),
    cpuInfo: cpuInfo(resources),
    uptime,
  };
}

/** 5.0.2 → 5000002, as Nova's libvirt driver counts. */
export function versionNumber(version: string): number {
  const [major = 0, minor = 0, patch = 0] = version.split(/[^0-9]+/).map(Number);
  return major * 1_000_000 + minor * 1_000 + patch;
}

function cpusOf({ cpu }: Resources): HostFacts['cpus'] {
  const threads = cpu.sockets.flatMap(({ cores }) => cores.flatMap((core) => core.threads));
  return threads.filter(({ online }) => online).map(({ id, numa_node: node = 0 }) => ({ id, node }));
}

function cpuInfo({ cpu }: Resources): string {
  const [first] = cpu.sockets;
  const cores = first?.cores.length ?? 0;
  return JSON.stringify({
    arch: cpu.architecture,
    model: first?.name ?? '',
    vendor: first?.vendor ?? '',
    topology: { sockets: cpu.sockets.length, cores, threads: first?.cores[0]?.threads.length ?? 0 },
    features: [],
  });
}

/** Only of an engine on this machine: the API does not tell it. */
export async function uptimeOf(endpoint: Endpoint, host: Host): Promise<string> {
  if (endpoint.kind !== 'unix') return '';
  const [seconds = '0'] = (await host.readFile('/proc/uptime')).split(' ');
  const [one = '', five = '', fifteen = ''] = (await host.readFile('/proc/loadavg')).split(' ');
  const minutes = Math.floor(Number(seconds) / 60);
  const days = Math.floor(minutes / 1440);
  const clock = `${Math.floor((minutes % 1440) / 60)}:${String(minutes % 60).padStart(2, '0')}`;
  return `up ${days} ${days === 1 ? 'day' : 'days'}, ${clock}, load average: ${one}, ${five}, ${fifteen}`;
}
