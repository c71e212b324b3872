// What the driver finds out about the engine when it starts: version, abilities, the pool of the root disks.
import type { EngineClient } from '#src/client/client.ts';
import type { Server, StoragePool } from '#src/client/wire.ts';
import type { Host } from '#src/host/host.ts';
import { AppError, kindOf } from '#src/lib/errors.ts';
import type { FlavorPolicy } from './extra-specs.ts';
import type { LxdDriverOptions } from './options.ts';

export interface EngineSetup {
  readonly server: Server;
  readonly nodeName: string;
  readonly pool: string;
  /** Root disks are given the flavor's size. */
  readonly rootQuota: boolean;
  /** The engine can show folders of the host through a container's id map. */
  readonly mapsIds: boolean;
  /** The root of a stopped instance can be a disk of another one. */
  readonly lendsRoots: boolean;
  /** Roots can be on block devices. */
  readonly rootsOnDevices: boolean;
  /** File systems of disks can be served to instances. */
  readonly servesDisks: boolean;
  /** A paused instance can be kept from answering. */
  readonly silentPauses: boolean;
  /** Why flavors with swap are refused; null: they are not. */
  readonly swapComplaint: string | null;
  readonly policy: FlavorPolicy;
  /** Instances reach Nova's metadata service. */
  readonly metadataService: boolean;
  /** The engine's own architecture first. */
  readonly architectures: readonly string[];
}

/** Pools of these drivers hold an instance to its size. */
const QUOTA_DRIVERS = new Set(['zfs', 'btrfs', 'lvm', 'lvmcluster', 'ceph']);

export async function findSetup(
  { client, host }: { readonly client: EngineClient; readonly host: Pick<Host, 'exists' | 'readFile'> },
  options: LxdDriverOptions,
  signal: AbortSignal,
): Promise<EngineSetup> {
  const server = await client.server(signal);
  const { environment, api_extensions } = server;
  if (server.auth !== 'trusted' || !environment) {
    throw new AppError('unavailable', 'the engine does not trust this client: add client_cert to its trust store');
  }
  const extensions = new Set(api_extensions);
  if (!extensions.has('instances'))
    throw new AppError('unavailable', 'the engine is too old: LXD 4.0 or later is needed');
  const pool = await findPool(client, options, signal);
  const own = environment.kernel_architecture;
  return {
    server,
    nodeName: options.nodeName ?? environment.server_name,
    pool: pool.name,
    rootQuota: wantsQuota(options, pool),
    // LXD announces the ability also where its `shift` fails
    mapsIds: extensions.has('lighter_disk_shift') && environment.kernel_features?.idmapped_mounts === 'true',
    lendsRoots: extensions.has('lighter_disk_instance_root'),
    rootsOnDevices: extensions.has('lighter_root_block') && options.endpoint.kind === 'unix',
    silentPauses: extensions.has('lighter_pause_silent'),
    servesDisks: extensions.has('lighter_disk_served') && options.endpoint.kind === 'unix',
    swapComplaint: await swapComplaint(host, options, extensions),
    policy: options.policy,
    metadataService: options.metadataService,
    architectures: [own, ...(environment.architectures ?? []).filter((name) => name !== own)],
  };
}

/** Swap is the host's, and each guest has so much of it beside its memory; a host without any has none to give. */
async function swapComplaint(
  host: Pick<Host, 'exists' | 'readFile'>,
  { endpoint }: LxdDriverOptions,
  extensions: ReadonlySet<string>,
): Promise<string | null> {
  if (!extensions.has('instance_memory_swap_bytes'))
    return 'the container engine cannot limit swap by size: Swap disks are not supported on this host';
  if (endpoint.kind !== 'unix') return null;
  const [, ...areas] = (await host.readFile('/proc/swaps')).trim().split('\n');
  return areas.length > 0 ? null : 'this host has no swap space: Swap disks are not supported on it';
}

/** Our engine tells, since with directories it depends on the file system below; of others only the driver is known. */
function wantsQuota({ rootQuota }: LxdDriverOptions, pool: StoragePool): boolean {
  if (rootQuota !== 'auto') return rootQuota === 'always';
  return pool.quotas ?? QUOTA_DRIVERS.has(pool.driver);
}

async function findPool(
  client: EngineClient,
  { storagePool }: LxdDriverOptions,
  signal: AbortSignal,
): Promise<StoragePool> {
  const pools = await client.storagePools.list(signal);
  const name =
    storagePool ?? (await poolOfDefaultProfile(client, signal)) ?? (pools.length === 1 ? pools[0]?.name : '');
  const pool = pools.find((candidate) => candidate.name === name);
  if (pool) return pool;
  throw new AppError(
    'unavailable',
    storagePool === null
      ? 'cannot tell which storage pool to use: set storage_pool, or give the default profile a root disk'
      : `the engine has no storage pool ${storagePool}: create it, or set storage_pool to one of its own`,
  );
}

async function poolOfDefaultProfile(client: EngineClient, signal: AbortSignal): Promise<string | undefined> {
  try {
    const { devices } = await client.profiles.get('default', signal);
    return Object.values(devices).find(({ type, path }) => type === 'disk' && path === '/')?.['pool'];
  } catch (error) {
    if (kindOf(error) === 'not_found') return undefined;
    throw error;
  }
}
