// Undoes the lab: processes, the agents' children, bridges, firewall chains; containers of the lab's engine.
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { run } from './commands.ts';
import { PHYSICAL_NETWORKS } from './configuration.ts';
import { CINDER, removeShareMounts } from './cinder.ts';
import { Cloud } from './cloud.ts';
import { L3_AGENT, SERVICES } from './control-plane.ts';
import { stopContainers } from './containers.ts';
import { LXCFS } from './node.ts';
import { Processes } from './processes.ts';
import { say, step } from './progress.ts';
import { SECOND_HOST, SecondNode } from './second-node.ts';
import type { LabPaths } from './settings.ts';
import { removeBridges, SWITCHES } from './switches.ts';

const LAST = ['rabbitmq', 'mariadb', 'memcached'] as const;

/** dnsmasq and haproxy are daemons of the agents, found by the agents' own pid files. */
function agentChildren({ data }: LabPaths): readonly number[] {
  const dhcp = join(data, 'neutron/dhcp');
  const proxies = join(data, 'neutron/external/pids');
  const files = [
    ...(existsSync(dhcp) ? readdirSync(dhcp).map((network) => join(dhcp, network, 'pid')) : []),
    ...(existsSync(proxies) ? readdirSync(proxies).map((name) => join(proxies, name)) : []),
  ];
  return files
    .filter((file) => existsSync(file))
    .map((file) => Number(readFileSync(file, 'utf8')))
    .filter((pid) => {
      try {
        return pid > 1 && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(join(data, 'neutron'));
      } catch {
        return false;
      }
    });
}

async function removeNetworks({ data }: LabPaths): Promise<void> {
  const dhcp = join(data, 'neutron/dhcp');
  const networks = existsSync(dhcp) ? readdirSync(dhcp) : [];
  const namespaces = await run(['ip', 'netns', 'list']);
  for (const network of networks) {
    if (namespaces.includes(`qdhcp-${network}`)) await run(['ip', 'netns', 'del', `qdhcp-${network}`]);
    const bridge = `brq${network.slice(0, 11)}`;
    if (!existsSync(`/sys/class/net/${bridge}`)) continue;
    const taps = readdirSync(`/sys/class/net/${bridge}/brif`).filter((name) => name.startsWith('tap'));
    for (const tap of taps) await removeTap(tap);
    await run(['ip', 'link', 'del', bridge]);
  }
  // of a network that was deleted while no agent was there to see it: a route of its addresses stays with it
  for (const bridge of readdirSync('/sys/class/net').filter((name) => name.startsWith('brq'))) {
    const ports = `/sys/class/net/${bridge}/brif`;
    if (existsSync(ports) && readdirSync(ports).length === 0) await run(['ip', 'link', 'del', bridge]);
  }
  for (const { inside } of Object.values(PHYSICAL_NETWORKS)) {
    if (!existsSync(`/sys/class/net/${inside}`)) continue;
    const bridge = `/sys/class/net/${inside}/brport/bridge`;
    // of a network without DHCP: with addresses for routers only
    if (existsSync(bridge)) await run(['ip', 'link', 'del', basename(readlinkSync(bridge))]);
    await run(['ip', 'link', 'del', inside]);
  }
}

async function removeRouters(): Promise<void> {
  const names = (await run(['ip', 'netns', 'list'])).split('\n').map((line) => line.split(' ')[0] ?? '');
  for (const name of names.filter((one) => one.startsWith('qrouter-'))) await run(['ip', 'netns', 'del', name]);
}

/** The kernel removes those of a namespace by itself, in its own time: perhaps just now. */
async function removeTap(tap: string): Promise<void> {
  await run(['ip', 'link', 'del', tap]).catch((error: unknown) => {
    if (existsSync(`/sys/class/net/${tap}`)) throw error;
  });
}

/** The agent's chains, which it leaves behind; rules of others stay. */
async function removeFirewall(): Promise<void> {
  for (const tool of ['iptables', 'ip6tables']) {
    for (const table of ['filter', 'raw', 'mangle', 'nat']) {
      const script = `${tool}-save -t ${table} | grep -v -- neutron- | ${tool}-restore -T ${table}`;
      const rules = await run([`${tool}-save`, '-t', table]);
      if (rules.includes('neutron-')) await run(['sh', '-c', script]);
    }
  }
}

export async function tearDown(paths: LabPaths): Promise<void> {
  const processes = new Processes(paths);
  const ours = processes.names();
  const children = agentChildren(paths);
  const onTop = ours.filter(
    (name) => ![...SERVICES, ...CINDER, ...LAST, ...SWITCHES, 'epmd', LXCFS, paths.engine].includes(name),
  );
  const second = new SecondNode(new Cloud(), { paths, processes }, SECOND_HOST);
  if (processes.pid(second.engineName) !== undefined) {
    await step('the second host', async () => {
      await stopContainers(second.directory);
      await second.stop();
    });
  }
  await step('computes', () => Promise.all(onTop.map((name) => processes.stop(name))));
  if (processes.pid(paths.engine) !== undefined) await step('containers', () => stopContainers(paths.engineFolder));
  await processes.stop(paths.engine);
  await processes.stop(LXCFS);
  await step('OpenStack services', () => Promise.all([...CINDER, ...SERVICES].map((name) => processes.stop(name))));
  await removeShareMounts(paths);
  await step('infrastructure', () => Promise.all(LAST.map((name) => processes.stop(name, 40_000))));
  await processes.stop('epmd');
  for (const pid of children) process.kill(pid, 'SIGTERM');
  if (ours.includes(L3_AGENT)) await removeRouters();
  if (existsSync('/usr/sbin/ip') || existsSync('/sbin/ip')) await removeNetworks(paths);
  await removeBridges(processes);
  for (const name of SWITCHES) await processes.stop(name);
  if (existsSync('/usr/sbin/iptables-save')) await removeFirewall();
  say('nothing of the lab runs any more');
}
