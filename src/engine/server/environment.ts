// What the server says of itself and its host: GET /1.0's environment.
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import type { StorageModule } from '#drivers/storage/driver.ts';
import { canIntercept } from '#src/host/system-calls/support.ts';
import type { Host } from '#src/host/host.ts';
import type { StoragePools } from '../storage/storage-pools.ts';
import type { ServerCertificate } from '../certificates/server-certificate.ts';
import type { ListenAddress } from './address.ts';

/** The version of LXD's API that this server speaks; clients compare it. */
const API_LEVEL = '5.0.2';

/** Where commands are looked for. */
const PROGRAM_FOLDERS = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];

const PERSONALITIES: Readonly<Record<string, readonly string[]>> = {
  x86_64: ['x86_64', 'i686'],
  aarch64: ['aarch64', 'armv7l'],
};

/** Which tools for packet filters this host has; LXD's names. */
type Firewall = 'nftables' | 'xtables' | '';

/** What does not change while the daemon runs. */
export interface HostFacts {
  readonly kernelVersion: string;
  readonly architecture: string;
  readonly hostname: string;
  readonly osName: string;
  readonly osVersion: string;
  readonly runtimeVersion: string;
  /** Whether the file system of our own state can be mounted through an id map. */
  readonly mapsIds: boolean;
  /** Whether system calls of containers can be held until they are looked at. */
  readonly interceptsCalls: boolean;
  readonly firewall: Firewall;
}

export async function readHostFacts(
  host: Host,
  root: string,
  runtimeVersion: () => Promise<string>,
): Promise<HostFacts> {
  const [machine, release, hostname, os, mapsIds, interceptsCalls, firewall] = await Promise.all([
    host.run(['uname', '-m']),
    host.readFile('/proc/sys/kernel/osrelease'),
    host.readFile('/proc/sys/kernel/hostname'),
    host.readFile('/etc/os-release').catch(() => ''),
    host.mounts.canMapIds(root),
    canIntercept(host),
    findFirewall(host),
  ]);
  const field = (name: string) => new RegExp(`^${name}="?([^"\\n]*)"?$`, 'mu').exec(os)?.[1] ?? '';
  return {
    kernelVersion: release.trim(),
    architecture: machine.stdout.trim(),
    hostname: hostname.trim(),
    osName: field('NAME'),
    osVersion: field('VERSION_ID'),
    runtimeVersion: await runtimeVersion(),
    mapsIds,
    interceptsCalls,
    firewall,
  };
}

async function findFirewall(host: Host): Promise<Firewall> {
  if (await isInstalled(host, 'nft')) return 'nftables';
  return (await isInstalled(host, 'iptables')) ? 'xtables' : '';
}

async function isInstalled(host: Host, program: string): Promise<boolean> {
  for (const folder of PROGRAM_FOLDERS) if (await host.exists(join(folder, program))) return true;
  return false;
}

/** Drivers of which this host has all that they need. */
export async function usableDrivers(
  host: Host,
  modules: Readonly<Record<string, StorageModule>>,
): Promise<readonly string[]> {
  const usable: string[] = [];
  for (const [name, module] of Object.entries(modules)) {
    if (((await module.missing?.(host)) ?? []).length === 0) usable.push(name);
  }
  return usable;
}

/** What this host can run, its own first. */
export function architecturesOf({ architecture }: Pick<HostFacts, 'architecture'>): readonly string[] {
  return PERSONALITIES[architecture] ?? [architecture];
}

/** What LXD has of liblxc, and here nics have of the engine. Not ipvlan: the kernel may be without. */
const NIC_FEATURES = {
  network_gateway_device_route: 'true',
  network_l2proxy: 'true',
  network_phys_macvlan_mtu: 'true',
  network_veth_router: 'true',
  seccomp_notify: 'true',
  seccomp_proxy_send_notify_fd: 'true',
};

export interface EnvironmentSources {
  readonly facts: HostFacts;
  readonly certificate: Pick<ServerCertificate, 'certificate' | 'fingerprint'>;
  readonly pools: Pick<StoragePools, 'list'>;
  /** Names of the storage drivers that this host can run. */
  readonly drivers: readonly string[];
  readonly listenAddress: () => ListenAddress | undefined;
  readonly version: string;
}

export function environmentOf({
  facts,
  certificate,
  pools,
  drivers,
  listenAddress,
  version,
}: EnvironmentSources): object {
  const used = [...new Set(pools.list().map(({ driver }) => driver))];
  return {
    addresses: addressesOf(listenAddress()),
    architectures: architecturesOf(facts),
    certificate: certificate.certificate,
    certificate_fingerprint: certificate.fingerprint,
    driver: 'lxc',
    driver_version: facts.runtimeVersion,
    firewall: facts.firewall,
    kernel: 'Linux',
    kernel_architecture: facts.architecture,
    kernel_features: {
      idmapped_mounts: String(facts.mapsIds),
      seccomp_listener: String(facts.interceptsCalls),
      seccomp_listener_continue: String(facts.interceptsCalls),
    },
    kernel_version: facts.kernelVersion,
    lxc_features: NIC_FEATURES,
    os_name: facts.osName,
    os_version: facts.osVersion,
    server: 'lxd',
    server_clustered: false,
    server_event_mode: 'full-mesh',
    server_name: facts.hostname,
    server_pid: process.pid,
    server_version: API_LEVEL,
    storage: used.join(' | '),
    storage_version: used.map(() => version).join(' | '),
    storage_supported_drivers: drivers.map((name) => ({ Name: name, Version: version, Remote: false })),
  };
}

/** Where clients reach the TLS listener; for a wildcard every address that others can route to. */
export function addressesOf(listen: ListenAddress | undefined): readonly string[] {
  if (!listen) return [];
  const { host, port } = listen;
  const withPort = (address: string) => (address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`);
  if (host !== '::' && host !== '0.0.0.0') return [withPort(host)];
  return Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ internal, address, family }) => {
      return !internal && !address.startsWith('fe80:') && (host === '::' || family === 'IPv4');
    })
    .map(({ address }) => withPort(address));
}
