// The OpenStack services: databases migrated once, then started in the order in which they need each other.
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Cloud } from './cloud.ts';
import { run, SYSTEM_ENV } from './commands.ts';
import { PHYSICAL_NETWORKS } from './configuration.ts';
import { ensureIdentity } from './identity.ts';
import { createDatabases, type Database, dropDatabases, once, startInfrastructure } from './infrastructure.ts';
import { httpAnswers, type Processes } from './processes.ts';
import type { LabNetwork } from './networks.ts';
import { say, step } from './progress.ts';
import { type LabPaths, PASSWORD, PORTS, REGION } from './settings.ts';
import { ensurePhysicalBridge, startSwitches } from './switches.ts';

const file = (paths: LabPaths, name: string) => ['--config-file', join(paths.etc, name)] as const;
const neutronFiles = (paths: LabPaths, second: string) => [
  ...file(paths, 'neutron/neutron.conf'),
  ...file(paths, `neutron/${second}`),
];

async function createFernetKeys(paths: LabPaths): Promise<void> {
  for (const kind of ['fernet', 'credential']) {
    const setup = [`${kind}_setup`, '--keystone-user', 'root', '--keystone-group', 'root'];
    await run(['keystone-manage', ...file(paths, 'keystone/keystone.conf'), ...setup]);
  }
}

/** Fills databases with their schema. A schema half made can't be gone on with: the second try begins with empty ones. */
async function fill(paths: LabPaths, databases: readonly Database[], work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    say(`the schema of ${databases.join(', ')} is made once more, after: ${(error as Error).message}`);
    await dropDatabases(paths, databases);
    await createDatabases(paths);
    await work();
  }
}

async function migrate(paths: LabPaths): Promise<void> {
  const nova = ['nova-manage', ...file(paths, 'nova/nova.conf')] as const;
  const keystone = () => run(['keystone-manage', ...file(paths, 'keystone/keystone.conf'), 'db_sync']);
  const placement = () => run(['placement-manage', ...file(paths, 'placement/placement.conf'), 'db', 'sync']);
  const glance = () => run(['glance-manage', ...file(paths, 'glance/glance-api.conf'), 'db_sync']);
  const network = () => run(['neutron-db-manage', ...neutronFiles(paths, 'ml2_conf.ini'), 'upgrade', 'heads']);
  const cells = async () => {
    await run([...nova, 'api_db', 'sync']);
    await run([...nova, 'cell_v2', 'map_cell0']);
    await run([...nova, 'db', 'sync']);
    await run([...nova, 'cell_v2', 'create_cell', '--name', 'cell1']);
  };
  const small = async () => {
    await fill(paths, ['keystone'], keystone);
    await fill(paths, ['placement'], placement);
    await fill(paths, ['glance'], glance);
  };
  await Promise.all([
    small(),
    fill(paths, ['nova_api', 'nova_cell0', 'nova'], cells),
    fill(paths, ['neutron'], network),
  ]);
  const url = `http://127.0.0.1:${PORTS.keystone}/v3`;
  await run([
    'keystone-manage',
    ...file(paths, 'keystone/keystone.conf'),
    'bootstrap',
    '--bootstrap-password',
    PASSWORD,
    '--bootstrap-region-id',
    REGION,
    '--bootstrap-admin-url',
    url,
    '--bootstrap-internal-url',
    url,
    '--bootstrap-public-url',
    url,
  ]);
}

function startWsgi(
  processes: Processes,
  name: string,
  port: number,
  options: { script: string; env: Record<string, string> },
): void {
  const { script, env } = options;
  processes.start({
    name,
    env,
    argv: [
      'uwsgi',
      '--plugin',
      'python3',
      '--http-socket',
      `127.0.0.1:${port}`,
      '--wsgi-file',
      script,
      '--master',
      '--processes',
      '1',
      '--threads',
      '4',
      '--enable-threads',
      '--lazy-apps',
      '--die-on-term',
      '--buffer-size',
      '65535',
      '--thunder-lock',
      '--listen',
      '100',
      '--add-header',
      'Connection: close',
    ],
  });
}

const url = (port: number, path = '/') => `http://127.0.0.1:${port}${path}`;

async function startServices(paths: LabPaths, processes: Processes): Promise<void> {
  for (const folder of ['glance/images', 'nova/lock', 'nova/instances', 'neutron/lock', 'compute']) {
    mkdirSync(join(paths.data, folder), { recursive: true });
  }
  startWsgi(processes, 'keystone', PORTS.keystone, {
    script: '/usr/bin/keystone-wsgi-public',
    env: { OS_KEYSTONE_CONFIG_FILES: join(paths.etc, 'keystone/keystone.conf') },
  });
  startWsgi(processes, 'placement', PORTS.placement, {
    script: '/usr/bin/placement-api',
    env: { OS_PLACEMENT_CONFIG_DIR: join(paths.etc, 'placement') },
  });
  processes.start({ name: 'glance', argv: ['glance-api', ...file(paths, 'glance/glance-api.conf')] });
  startNeutronServer(paths, processes);
  await processes.waitFor('keystone', () => httpAnswers(url(PORTS.keystone, '/v3')));
  await once(paths, 'identity', ensureIdentity);
  await processes.waitFor('placement', () => httpAnswers(url(PORTS.placement)));
  // these three give up at start when Keystone or Placement do not answer them
  for (const name of ['nova-conductor', 'nova-scheduler'] as const) {
    processes.start({ name, argv: [name, ...file(paths, 'nova/nova.conf')] });
  }
  await Promise.all([
    processes.waitFor('glance', () => httpAnswers(url(PORTS.glance))),
    processes.waitFor('neutron-server', () => httpAnswers(url(PORTS.neutron))),
    startNovaApi(paths, processes),
  ]);
}

/** `extra` are further configuration files; what they say wins. */
export async function startNovaApi(
  paths: LabPaths,
  processes: Processes,
  extra: readonly string[] = [],
): Promise<void> {
  const files = [join(paths.etc, 'nova/nova.conf'), ...extra].flatMap((path) => ['--config-file', path]);
  processes.start({ name: 'nova-api', argv: ['nova-api', ...files] });
  await processes.waitFor('nova-api', () => httpAnswers(url(PORTS.nova)));
  await processes.waitFor('nova-api', () => httpAnswers(url(PORTS.metadata)));
}

/** The agents find our ebtables first; see there. */
const AGENT_PATH = `${join(import.meta.dirname, 'tools')}:${SYSTEM_ENV['PATH']}`;

const AGENTS = {
  'neutron-linuxbridge-agent': 'linuxbridge_agent.ini',
  'neutron-openvswitch-agent': 'openvswitch_agent.ini',
  'neutron-dhcp-agent': 'dhcp_agent.ini',
  'neutron-metadata-agent': 'metadata_agent.ini',
} as const;

/** Routers and floating IP addresses: for those who want them. Debian has it in neutron-common. */
export const L3_AGENT = 'neutron-l3-agent';

export function startRouters(paths: LabPaths, processes: Processes): void {
  processes.start({
    name: L3_AGENT,
    argv: [L3_AGENT, ...neutronFiles(paths, 'l3_agent.ini')],
    env: { PATH: AGENT_PATH },
  });
}

export function startAgent(paths: LabPaths, processes: Processes, name: Agent): void {
  processes.start({ name, argv: [name, ...neutronFiles(paths, AGENTS[name])], env: { PATH: AGENT_PATH } });
}

/** `file` comes after the configuration of the first host's agent. */
export function startSecondAgent(
  paths: LabPaths,
  processes: Processes,
  { name, file: extra }: { readonly name: string; readonly file: string },
): void {
  const agent = 'neutron-linuxbridge-agent';
  const argv = [agent, ...neutronFiles(paths, AGENTS[agent]), '--config-file', extra] as const;
  processes.start({ name, argv, env: { PATH: AGENT_PATH } });
}

export function startNeutronServer(paths: LabPaths, processes: Processes): void {
  processes.start({ name: 'neutron-server', argv: ['neutron-server', ...neutronFiles(paths, 'ml2_conf.ini')] });
}

type Agent = keyof typeof AGENTS;

const AGENTS_OF: Readonly<Record<LabNetwork, readonly Agent[]>> = {
  linuxbridge: ['neutron-linuxbridge-agent', 'neutron-dhcp-agent', 'neutron-metadata-agent'],
  ovs: ['neutron-openvswitch-agent', 'neutron-dhcp-agent', 'neutron-metadata-agent'],
  ovn: [],
};

/** The agent that wires ports. */
export function wiringAgent({ network }: LabPaths): Agent | undefined {
  return AGENTS_OF[network][0];
}

async function startAgents(paths: LabPaths, processes: Processes): Promise<void> {
  if (paths.network === 'linuxbridge') await ensurePhysicalInterfaces();
  else {
    await startSwitches(paths, processes);
    await ensurePhysicalBridge();
  }
  const [wiring, ...others] = AGENTS_OF[paths.network];
  if (wiring === undefined) return;
  startAgent(paths, processes, wiring);
  // this one takes its time, and the port of DHCP could not be bound before
  if (wiring === 'neutron-openvswitch-agent') await processes.waitFor(wiring, () => hasReported(wiring));
  for (const name of others) startAgent(paths, processes, name);
}

async function hasReported(binary: Agent): Promise<boolean> {
  const cloud = new Cloud();
  const { agents } = await cloud.get<{ agents: readonly { alive: boolean }[] }>(
    cloud.network,
    `/v2.0/agents?binary=${binary}`,
  );
  return agents.some(({ alive }) => alive);
}

async function ensurePhysicalInterfaces(): Promise<void> {
  for (const { inside, host } of Object.values(PHYSICAL_NETWORKS)) {
    if (existsSync(`/sys/class/net/${inside}`)) continue;
    await run(['ip', 'link', 'add', inside, 'type', 'veth', 'peer', 'name', host]);
    for (const end of [inside, host]) await run(['ip', 'link', 'set', end, 'up']);
  }
}

/** Order matters at the end: the last ones are what the others stand on. */
export const SERVICES = [
  L3_AGENT,
  'neutron-metadata-agent',
  'neutron-dhcp-agent',
  'neutron-linuxbridge-agent',
  'neutron-openvswitch-agent',
  'nova-api',
  'nova-scheduler',
  'nova-conductor',
  'neutron-server',
  'glance',
  'placement',
  'keystone',
] as const;

export async function startControlPlane(paths: LabPaths, processes: Processes): Promise<void> {
  await step('message queue, database, cache', () => startInfrastructure(paths, processes));
  await createDatabases(paths);
  await once(paths, 'schema', async () => {
    await step('database schemas', async () => {
      await createFernetKeys(paths);
      await migrate(paths);
    });
  });
  await step('Keystone, Placement, Glance, Neutron, Nova', () => startServices(paths, processes));
  await startAgents(paths, processes);
  writeFileSync(join(paths.data, '.control-plane'), '');
}
