// The first server: booted, reachable, its console log shown.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { run } from './commands.ts';
import { wiringAgent } from './control-plane.ts';
import { Cloud, type Server } from './cloud.ts';
import { say } from './progress.ts';
import { FLAVOR, IMAGE, NETWORK } from './resources.ts';
import { COMPUTE_HOST, defaultPaths } from './settings.ts';

export interface ServiceRow {
  readonly id: string;
  readonly updated_at: string | null;
  readonly binary: string;
  readonly host: string;
  readonly state: string;
  readonly status: string;
}

export async function services(cloud: Cloud): Promise<readonly ServiceRow[]> {
  return (await cloud.get<{ services: readonly ServiceRow[] }>(cloud.compute, '/os-services')).services;
}

/** Waits until the compute is up, mapped to its cell, and its provider is there. */
export async function waitForCompute(cloud: Cloud, host = COMPUTE_HOST, limitMs = 90_000): Promise<void> {
  const deadline = Date.now() + limitMs;
  for (;;) {
    const up = (await services(cloud)).some(
      (row) => row.host === host && row.binary === 'nova-compute' && row.state === 'up',
    );
    // not /detail: it asks the compute for its uptime, which a compute that only just starts cannot answer
    const { hypervisors } = await cloud.get<{ hypervisors: readonly { hypervisor_hostname: string }[] }>(
      cloud.compute,
      '/os-hypervisors',
    );
    if (up && hypervisors.some(({ hypervisor_hostname: name }) => name === host)) return;
    if (Date.now() > deadline) throw new Error(`compute ${host} does not come up; see its log`);
    await sleep(500);
  }
}

/**
 * Whether it is worth while to look at a server itself: Nova asks Neutron twice for that, which on two cores slows down what is
 * waited for. The short list costs a tenth of it.
 */
async function hasStatus(cloud: Cloud, id: string, wanted: string): Promise<boolean> {
  const query = wanted === 'DELETED' ? '' : `&status=${wanted}&status=ERROR`;
  const path = `/servers?all_tenants=1&uuid=${id}${query}`;
  const { servers } = await cloud.get<{ servers: readonly unknown[] }>(cloud.compute, path);
  return wanted === 'DELETED' ? servers.length === 0 : servers.length > 0;
}

/** Waits for a status; throws with the fault when the server ends in ERROR, undefined when it is gone. */
export async function waitForStatus(
  cloud: Cloud,
  id: string,
  wanted: string,
  limitMs = 120_000,
): Promise<Server | undefined> {
  const deadline = Date.now() + limitMs;
  for (let looks = 0; ; looks += 1) {
    const isLate = Date.now() > deadline;
    // the first look and every tenth one are at the server itself: one that is gone is in no list
    if (isLate || looks % 10 === 0 || (await hasStatus(cloud, id, wanted))) {
      const server = await cloud.server(id);
      if (server === undefined) {
        if (wanted === 'DELETED') return undefined;
        throw new Error(`server ${id} is gone`);
      }
      if (server.status === wanted && server['OS-EXT-STS:task_state'] === null) return server;
      refuse(server, wanted, isLate ? limitMs : undefined);
    }
    await sleep(150);
  }
}

/** A server in ERROR may still be deleted: then only the end of the patience counts. */
function refuse(server: Server, wanted: string, lateMs: number | undefined): void {
  const { id, status, fault } = server;
  if (status === 'ERROR' && wanted !== 'ERROR' && wanted !== 'DELETED') {
    throw new Error(`server ${id} is in ERROR: ${fault?.message ?? 'no fault'} ${fault?.details ?? ''}`);
  }
  if (lateMs === undefined) return;
  throw new Error(`server ${id} is ${status} (${server['OS-EXT-STS:task_state']}) after ${lateMs / 1000} s`);
}

export interface Reference {
  readonly image: string;
  readonly flavor: string;
  readonly network: string;
}

export async function references(cloud: Cloud): Promise<Reference> {
  const [images, flavors, networks] = await Promise.all([
    cloud.get<{ images: readonly { id: string }[] }>(cloud.image, `/v2/images?name=${IMAGE}`),
    cloud.get<{ flavors: readonly { id: string; name: string }[] }>(cloud.compute, '/flavors'),
    cloud.get<{ networks: readonly { id: string }[] }>(cloud.network, `/v2.0/networks?name=${NETWORK}`),
  ]);
  return {
    image: images.images[0]?.id ?? '',
    flavor: flavors.flavors.find(({ name }) => name === FLAVOR)?.id ?? '',
    network: networks.networks[0]?.id ?? '',
  };
}

export function addressOf(server: Server): string | undefined {
  return Object.values(server.addresses)
    .flat()
    .find(({ version }) => version === 4)?.addr;
}

/** From the network's DHCP namespace, which is the one place on this machine inside the tenant's network. */
export async function ping(address: string, network: string): Promise<boolean> {
  const namespace = `qdhcp-${network}`;
  try {
    await run(['ip', 'netns', 'exec', namespace, 'ping', '-n', '-c', '1', '-W', '1', address]);
    return true;
  } catch {
    return false;
  }
}

export async function waitForPing(address: string, network: string, limitMs = 60_000): Promise<void> {
  const deadline = Date.now() + limitMs;
  while (!(await ping(address, network))) {
    if (Date.now() > deadline) throw new Error(`${address} does not answer ping after ${limitMs / 1000} s`);
    await sleep(300);
  }
}

export async function consoleLog(cloud: Cloud, id: string, length = 20): Promise<string> {
  const body = (await cloud.action(id, { 'os-getConsoleOutput': { length } })) as { output: string };
  return body.output;
}

/** A server of that name that is still good, started again when it was stopped; one in ERROR is deleted. */
async function findFirst(cloud: Cloud, name: string): Promise<string | undefined> {
  const { servers } = await cloud.get<{ servers: readonly Server[] }>(cloud.compute, `/servers/detail?name=^${name}$`);
  const [server] = servers;
  if (server?.status === 'SHUTOFF') await cloud.action(server.id, { 'os-start': null });
  if (server?.status !== 'ERROR') return server?.id;
  await cloud.delete(cloud.compute, `/servers/${server.id}`);
  await waitForStatus(cloud, server.id, 'DELETED');
  return undefined;
}

/** A network that was made before the agent came is given to it with its first port only, which is too late for that port. */
async function scheduleDhcp(cloud: Cloud, network: string): Promise<void> {
  type Agents = { readonly agents: readonly { readonly id: string; readonly binary: string }[] };
  const hosting = await cloud.get<Agents>(cloud.network, `/v2.0/networks/${network}/dhcp-agents`);
  if (hosting.agents.length > 0) return;
  const { agents } = await cloud.get<Agents>(cloud.network, '/v2.0/agents');
  const agent = agents.find(({ binary }) => binary === 'neutron-dhcp-agent');
  if (!agent) throw new Error('Neutron has no DHCP agent');
  await cloud.post(cloud.network, `/v2.0/agents/${agent.id}/dhcp-networks`, { network_id: network });
}

/**
 * Waits until the agent serves the network, by its own word about its own port there: it does not hear of ports that are made
 * while it sets the network up, and such a port never gets an answer.
 */
async function waitForDhcp(cloud: Cloud, network: string, limitMs = 60_000): Promise<void> {
  const agentLog = join(defaultPaths().log, 'neutron-dhcp-agent.log');
  const query = `/v2.0/ports?network_id=${network}&device_owner=network:dhcp`;
  const isServing = async (): Promise<boolean> => {
    const { ports } = await cloud.get<{ ports: readonly { id: string; status: string }[] }>(cloud.network, query);
    const said = readFileSync(agentLog, 'utf8')
      .split('\n')
      .filter((line) => line.includes('DHCP configuration for ports'));
    return ports.some(({ id, status }) => status === 'ACTIVE' && said.some((line) => line.includes(id)));
  };
  const deadline = Date.now() + limitMs;
  while (!(await isServing())) {
    if (Date.now() > deadline)
      throw new Error(`Neutron's DHCP agent does not serve network ${network}: see ${agentLog}`);
    await sleep(300);
  }
}

/** Boots `first`, or finds it again. */
export async function bootFirstServer(cloud: Cloud): Promise<Server> {
  const { image, flavor, network } = await references(cloud);
  await scheduleDhcp(cloud, network);
  await waitForDhcp(cloud, network);
  // a server is on the engine that it was made on
  const { engine } = defaultPaths();
  const name = engine === 'lighterd' ? 'first' : `first-${engine}`;
  const fresh = { name, imageRef: image, flavorRef: flavor, networks: [{ uuid: network }] };
  const id = (await findFirst(cloud, name)) ?? (await cloud.createServer(fresh));
  const server = await waitForStatus(cloud, id, 'ACTIVE');
  const address = server && addressOf(server);
  if (!server || address === undefined) throw new Error('the first server has no address');
  say(`server "${name}" is ACTIVE with address ${address}`);
  await waitForPing(address, network);
  say(`${address} answers ping`);
  return server;
}

/** Waits until Neutron's agents on this host have reported: a port cannot be bound before. */
export async function waitForAgents(cloud: Cloud, since: number, limitMs = 120_000): Promise<void> {
  const wanted = [wiringAgent(defaultPaths()), 'neutron-dhcp-agent'].filter((name) => name !== undefined);
  const deadline = Date.now() + limitMs;
  for (;;) {
    const { agents } = await cloud.get<{
      agents: readonly { binary: string; alive: boolean; heartbeat_timestamp: string }[];
    }>(cloud.network, '/v2.0/agents');
    const alive = agents.filter(
      (agent) => agent.alive && Date.parse(`${agent.heartbeat_timestamp.replace(' ', 'T')}Z`) >= since - 30_000,
    );
    const names = new Set(alive.map(({ binary }) => binary));
    if (wanted.every((name) => names.has(name))) return;
    if (Date.now() > deadline)
      throw new Error(`Neutron's agents do not report; alive: ${[...names].join(', ') || 'none'}`);
    await sleep(500);
  }
}

/** Names of the network interfaces of this machine; for comparing before and after. */
export function interfaces(): readonly string[] {
  return readdirSync('/sys/class/net').sort();
}

/** Mount points of this machine; for comparing before and after. */
export function mounts(): readonly string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((path) => path !== '')
    .sort();
}
