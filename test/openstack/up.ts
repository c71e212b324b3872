// npm run up: an all-in-one OpenStack from Debian's packages, our engine and our compute, and a first server on them.
import { startCinder } from './lab/cinder.ts';
import { startControlPlane, startRouters } from './lab/control-plane.ts';
import { writeConfiguration } from './lab/configuration.ts';
import { Cloud, type Server } from './lab/cloud.ts';
import { bootFirstServer, consoleLog, services, waitForAgents, waitForCompute } from './lab/first-server.ts';
import { once } from './lab/infrastructure.ts';
import { startCompute, startEngine, waitForConsumer } from './lab/node.ts';
import { keepNetwork } from './lab/networks.ts';
import { installPackages, PACKAGES } from './lab/packages.ts';
import { Processes } from './lab/processes.ts';
import { say, step } from './lab/progress.ts';
import { ensureExternalNetwork, ensureResources } from './lab/resources.ts';
import { SECOND_HOST, SecondNode } from './lab/second-node.ts';
import { defaultPaths, type LabPaths } from './lab/settings.ts';
import { datapathType } from './lab/switches.ts';

const USAGE = `usage: npm run up [-- --engine | [--volumes] [--ovs | --routers] [--second-host]]

  (nothing)      OpenStack, lighterd and nova-compute-lxd on this machine, and a first server
  --engine       the engine alone
  --volumes      Cinder as well
  --ovs          Neutron with its Open vSwitch agent in the place of the linuxbridge agent
  --routers      Neutron's L3 agent as well, and an external network for floating IP addresses
  --second-host  another lighterd and nova-compute-lxd, as the host ${SECOND_HOST}, which servers can be moved to

LIGHTERVISOR_ENGINE=lxd, or incus, takes a stock one in the place of lighterd; it must be installed.
LIGHTERVISOR_FIREWALL=iptables_hybrid, or noop, takes another firewall driver of the Open vSwitch agent than openvswitch.

State, logs and configuration: $LIGHTERVISOR_LAB (default /var/lib/lightervisor-lab). npm run down stops it all.`;

async function upEngine(paths: LabPaths): Promise<void> {
  await installPackages([...PACKAGES.engine, 'lxd-client']);
  await step(paths.engine, () => startEngine(paths, new Processes(paths)));
  console.log(`
The engine is up. Next:

  export LIGHTER_DIR=${paths.engineFolder} LXD_DIR=${paths.engineFolder}
  bin/lighter info
  lxc list                      # Debian's own client works as well
`);
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]?.map((_cell, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  return rows
    .map((row) => `  ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ')}`.trimEnd())
    .join('\n');
}

async function report(paths: LabPaths, cloud: Cloud, server: Server): Promise<void> {
  const rows = (await services(cloud)).map(({ binary, host, status, state }) => [binary, host, status, state]);
  const { hypervisors } = await cloud.get<{
    hypervisors: readonly { hypervisor_hostname: string; hypervisor_type: string; state: string }[];
  }>(cloud.compute, '/os-hypervisors/detail');
  const hosts = hypervisors.map(({ hypervisor_hostname, hypervisor_type, state }) => [
    hypervisor_hostname,
    hypervisor_type,
    state,
  ]);
  const log = await consoleLog(cloud, server.id, 10);
  console.log(`
Compute services
${table([['binary', 'host', 'status', 'state'], ...rows])}

Hypervisors
${table([['hostname', 'type', 'state'], ...hosts])}

Server ${server.name} (${server.id}): ${server.status}
${log
  .trimEnd()
  .split('\n')
  .map((line) => `  | ${line}`)
  .join('\n')}

Next:

  . ${paths.openrc}
  openstack server list
  openstack server create --image busybox --flavor c1.tiny --network private second --wait
  openstack console log show second
  lxc list                      # the same containers, on the engine
  npm run down
`);
}

interface Extras {
  readonly volumes: boolean;
  readonly routers: boolean;
  readonly secondHost: boolean;
}

async function upAll(paths: LabPaths, extras: Extras): Promise<void> {
  if (paths.network !== 'linuxbridge' && (extras.routers || extras.secondHost)) {
    throw new Error('routers and a second host are there with the linuxbridge agent only');
  }
  await installPackages([...PACKAGES.engine, ...PACKAGES.controlPlane]);
  keepNetwork(paths.state, paths.network);
  if (paths.network !== 'linuxbridge') await installPackages(PACKAGES.switches);
  writeConfiguration(paths, paths.network === 'linuxbridge' ? 'system' : await datapathType());
  const processes = new Processes(paths);
  const engine = step(paths.engine, () => startEngine(paths, processes));
  await startControlPlane(paths, processes);
  await engine;
  await once(paths, 'resources', () => step('flavors, network, image', () => ensureResources(paths)));
  const cloud = new Cloud();
  startCompute(paths, processes);
  await step('nova-compute-lxd', async () => {
    await waitForConsumer(processes);
    await waitForCompute(cloud);
  });
  if (extras.volumes) await step('Cinder', () => startCinder(paths, processes));
  if (extras.routers) {
    await installPackages(PACKAGES.routers);
    startRouters(paths, processes);
    await step('external network', () => ensureExternalNetwork(cloud));
  }
  if (extras.secondHost) {
    const second = new SecondNode(cloud, { paths, processes }, SECOND_HOST);
    await step(`the host ${SECOND_HOST}`, () => second.start({ gibibytes: 40, hasAgent: true }));
    second.engine.close();
  }
  await step('Neutron agents', () => waitForAgents(cloud, Date.now()));
  const server = await step('first server', () => bootFirstServer(cloud));
  await report(paths, cloud, server);
}

const { argv } = process;
if (process.getuid?.() !== 0) {
  console.error('npm run up starts containers and installs packages: run it as root');
  process.exitCode = 1;
} else if (argv.includes('--help') || argv.includes('-h')) {
  console.log(USAGE);
} else {
  if (argv.includes('--ovs')) process.env['LIGHTERVISOR_NETWORK'] = 'ovs';
  const paths = defaultPaths();
  try {
    const has = (option: string) => argv.includes(option);
    const extras = {
      volumes: has('--volumes'),
      routers: has('--routers'),
      secondHost: has('--second-host'),
    };
    await (has('--engine') ? upEngine(paths) : upAll(paths, extras));
    say('ready');
  } catch (error) {
    // the command that failed is named in the message; its whole output, which the error carries as well, says no more
    say(`failed: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
