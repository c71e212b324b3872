// Everything on this machine and in the cloud that a deleted server could have left behind.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { get } from 'node:http';
import { join } from 'node:path';
import { deepStrictEqual } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { Cloud } from './cloud.ts';
import { interfaces, mounts } from './first-server.ts';
import { defaultPaths, type LabPaths } from './settings.ts';
import { switchPorts } from './switches.ts';

export interface Residue {
  readonly interfaces: readonly string[];
  readonly mounts: readonly string[];
  /** Names of the engine's instances. */
  readonly instances: readonly string[];
  /** Folders of instances in the engine's pools and logs. */
  readonly folders: readonly string[];
  readonly cgroups: readonly string[];
  readonly monitors: readonly string[];
  /** Neutron ports of instances. */
  readonly ports: readonly string[];
  /** Of Open vSwitch, of instances. */
  readonly switchPorts: readonly string[];
  /** Consumers with allocations on any provider. */
  readonly consumers: readonly string[];
}

async function engineInstances(paths: LabPaths): Promise<readonly string[]> {
  const socketPath = join(paths.engineFolder, 'unix.socket');
  const body = await new Promise<string>((resolve, reject) => {
    get({ socketPath, path: '/1.0/instances' }, (response) => {
      let text = '';
      response.on('data', (chunk) => {
        text += String(chunk);
      });
      response.on('end', () => resolve(text));
    }).on('error', reject);
  });
  return (JSON.parse(body) as { metadata: readonly string[] }).metadata.toSorted();
}

function list(path: string): readonly string[] {
  return existsSync(path) ? readdirSync(path).map((name) => join(path, name)) : [];
}

function instanceFolders({ engine, engineFolder, data }: LabPaths): readonly string[] {
  // LXD and Incus keep the logs of those that are gone
  const kinds = ['containers', 'devices', 'blocks', 'shmounts', ...(engine === 'lighterd' ? ['logs'] : [])];
  const pools = list(join(engineFolder, 'storage-pools')).flatMap((pool) =>
    ['containers', 'containers-snapshots'].flatMap((kind) => list(join(pool, kind))),
  );
  return [...pools, ...kinds.flatMap((name) => list(join(engineFolder, name)))]
    .filter((path) => /instance-/.test(path))
    .concat(list(join(data, 'compute/config-drives')))
    .concat(list(join(data, 'compute/config-drive-disks')).filter((path) => path.endsWith('.iso')))
    .toSorted();
}

function instanceCgroups(): readonly string[] {
  return list('/sys/fs/cgroup')
    .flatMap((controller) => list(controller))
    .filter((path) => /lxc\.(payload|monitor|pivot).*instance-/.test(path))
    .toSorted();
}

/** Processes of the runtime, by command line. */
function runtimeProcesses({ engineFolder }: LabPaths): readonly string[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .flatMap((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
        return line.includes(engineFolder) && line.includes('instance-') ? [line] : [];
      } catch {
        return [];
      }
    })
    .toSorted();
}

async function allocatedConsumers(cloud: Cloud): Promise<readonly string[]> {
  const { resource_providers: providers } = await cloud.get<{ resource_providers: readonly { uuid: string }[] }>(
    cloud.placement,
    '/resource_providers',
  );
  const perProvider = await Promise.all(
    providers.map(({ uuid }) =>
      cloud.get<{ allocations: Record<string, unknown> }>(cloud.placement, `/resource_providers/${uuid}/allocations`),
    ),
  );
  return perProvider.flatMap(({ allocations }) => Object.keys(allocations)).toSorted();
}

export async function takeResidue(cloud: Cloud, paths: LabPaths): Promise<Residue> {
  const [instances, ports, consumers] = await Promise.all([
    engineInstances(paths),
    cloud.get<{ ports: readonly { id: string; device_owner: string }[] }>(cloud.network, '/v2.0/ports'),
    allocatedConsumers(cloud),
  ]);
  return {
    // Neutron's own agents make and remove these as networks come and go
    interfaces: interfaces().filter((name) => !name.startsWith('brq')),
    // the engine makes its folder of devices a mount with the first one, and keeps it
    mounts: mounts().filter((path) => !path.startsWith('/run/netns') && path !== join(paths.engineFolder, 'devices')),
    instances,
    folders: instanceFolders(paths),
    cgroups: instanceCgroups(),
    monitors: runtimeProcesses(paths),
    ports: ports.ports
      .filter(({ device_owner }) => device_owner.startsWith('compute:'))
      .map(({ id }) => id)
      .toSorted(),
    switchPorts: paths.network === 'linuxbridge' ? [] : await switchPorts(),
    consumers,
  };
}

/** Compares with an earlier look, until they agree: agents and monitors tidy up in their own time. */
export async function expectNothingLeft(
  before: Residue,
  limitMs: number,
  cloud = new Cloud(),
  paths = defaultPaths(),
): Promise<void> {
  const deadline = Date.now() + limitMs;
  for (;;) {
    const now = await takeResidue(cloud, paths);
    if (isDeepStrictEqual(now, before)) return;
    if (Date.now() > deadline) deepStrictEqual(now, before, 'something is left behind');
    await sleep(1000);
  }
}
