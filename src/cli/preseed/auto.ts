// What `lighter init --auto` wants of an engine, as a preseed document: a pool, a network, and a profile that uses both.
import type { EngineClient } from '#src/client/client.ts';
import type { Network, StoragePool } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Cli } from '../cli.ts';
import type { Preseed, Wanted } from './document.ts';

export interface AutoOptions {
  readonly networkAddress?: string;
  readonly networkPort?: string;
  readonly storageBackend?: string;
  readonly storagePool?: string;
  readonly trustPassword?: string;
}

const POOL = 'default';
const BRIDGE = 'lxdbr';
const PORT = '8443';

/** What one part of the machine adds to the document. */
interface Share {
  readonly made: readonly Wanted[];
  readonly device?: Readonly<Record<string, Device>>;
}

type Device = Readonly<Record<string, string>>;

/** What is there already is used as it is. AppError 'conflict' when another pool is asked for. */
export async function autoPreseed(cli: Cli, client: EngineClient, options: AutoOptions): Promise<Preseed> {
  const [pools, networks, profile] = await Promise.all([
    client.storagePools.list(cli.signal),
    client.networks.list(cli.signal),
    client.profiles.get('default', cli.signal),
  ]);
  const used = Object.values(profile.devices);
  const storage = storageShare(pools, used, options);
  const network = networkShare(networks, used);
  const devices = { ...storage.device, ...network.device };
  return {
    config: listening(options),
    storage_pools: storage.made,
    networks: network.made,
    projects: [],
    profiles: Object.keys(devices).length === 0 ? [] : [{ name: 'default', devices }],
  };
}

function storageShare(pools: readonly StoragePool[], used: readonly Device[], options: AutoOptions): Share {
  const pool = pools.find(({ name }) => name === POOL) ?? pools[0];
  if (pool !== undefined) refuseOtherPool(pool, options);
  const made = pool === undefined ? [wantedPool(options)] : [];
  if (used.some(({ type, path }) => type === 'disk' && path === '/')) return { made };
  return { made, device: { root: { type: 'disk', path: '/', pool: pool?.name ?? POOL } } };
}

function networkShare(networks: readonly Network[], used: readonly Device[]): Share {
  if (used.some(({ type }) => type === 'nic')) return { made: [] };
  const bridge = networks.find(({ managed, type }) => managed && type === 'bridge')?.name;
  const network = bridge ?? freeName(networks);
  return {
    made: bridge === undefined ? [{ name: network, type: 'bridge' }] : [],
    device: { eth0: { type: 'nic', name: 'eth0', network } },
  };
}

function wantedPool({ storageBackend = 'overlay', storagePool }: AutoOptions): Wanted {
  return {
    name: POOL,
    driver: storageBackend,
    ...(storagePool !== undefined && { config: { source: storagePool } }),
  };
}

function refuseOtherPool(pool: StoragePool, { storageBackend, storagePool }: AutoOptions): void {
  if (storagePool === undefined && (storageBackend === undefined || storageBackend === pool.driver)) return;
  throw new AppError(
    'conflict',
    `There is a storage pool already (${pool.name}, ${pool.driver}): leave --storage-backend and --storage-pool out, ` +
      'or start the engine with --storage none and an empty directory',
  );
}

/** The first lxdbrN that no interface of the machine has. */
function freeName(networks: readonly Network[]): string {
  const taken = new Set(networks.map(({ name }) => name));
  for (let number = 0; ; number += 1) if (!taken.has(`${BRIDGE}${number}`)) return `${BRIDGE}${number}`;
}

function listening({ networkAddress, networkPort, trustPassword }: AutoOptions): Readonly<Record<string, string>> {
  if (networkAddress === undefined) {
    if (networkPort !== undefined) throw new AppError('invalid', '--network-port needs --network-address');
    if (trustPassword !== undefined) throw new AppError('invalid', '--trust-password needs --network-address');
    return {};
  }
  const host = networkAddress === 'all' ? '[::]' : networkAddress;
  const isBareV6 = host.includes(':') && !host.startsWith('[');
  return {
    'core.https_address': `${isBareV6 ? `[${host}]` : host}:${networkPort ?? PORT}`,
    ...(trustPassword !== undefined && { 'core.trust_password': trustPassword }),
  };
}
