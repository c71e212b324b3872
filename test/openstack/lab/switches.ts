// Open vSwitch for the lab, as plain processes. Where the kernel has no part of it, its daemon forwards the packets itself.
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './commands.ts';
import type { Processes } from './processes.ts';
import type { LabPaths } from './settings.ts';

export const SWITCHES = ['ovs-vswitchd', 'ovsdb-server'] as const;
/** Stands for the network outside. */
export const PHYSICAL_BRIDGE = 'br-phys';
const FOLDER = '/run/openvswitch';
const SOCKET = join(FOLDER, 'db.sock');
export const OVSDB = `unix:${SOCKET}`;

/** Whether the lab's own, or those of somebody else on this machine, answer. */
async function answers(): Promise<boolean> {
  if (!existsSync(SOCKET)) return false;
  return await run(['ovs-vsctl', '--timeout=3', '--no-wait', 'show']).then(
    () => true,
    () => false,
  );
}

export async function startSwitches({ data }: LabPaths, processes: Processes): Promise<void> {
  const isOurs = processes.pid('ovsdb-server') !== undefined;
  if (!isOurs && (await answers())) return;
  mkdirSync(FOLDER, { recursive: true });
  const database = join(data, 'openvswitch.db');
  if (!existsSync(database)) await run(['ovsdb-tool', 'create', database, '/usr/share/openvswitch/vswitch.ovsschema']);
  const control = join(FOLDER, 'ovsdb-server.ctl');
  const argv = ['ovsdb-server', database, `--remote=punix:${SOCKET}`, `--unixctl=${control}`] as const;
  processes.start({ name: 'ovsdb-server', argv });
  await processes.waitFor('ovsdb-server', answers);
  await run(['ovs-vsctl', '--no-wait', 'init']);
  const switchControl = join(FOLDER, 'ovs-vswitchd.ctl');
  processes.start({ name: 'ovs-vswitchd', argv: ['ovs-vswitchd', OVSDB, `--unixctl=${switchControl}`] });
  await run(['ovs-vsctl', '--timeout=20', 'set', 'Open_vSwitch', '.', 'external-ids:system-id=node1']);
}

/** Before the agent looks for it. */
export async function ensurePhysicalBridge(): Promise<void> {
  const type = ['--', 'set', 'Bridge', PHYSICAL_BRIDGE, `datapath_type=${await datapathType()}`];
  await run(['ovs-vsctl', '--timeout=20', '--may-exist', 'add-br', PHYSICAL_BRIDGE, ...type]);
}

/** `system` is the kernel's. */
export async function datapathType(): Promise<'system' | 'netdev'> {
  const loaded = await run(['modprobe', 'openvswitch']).catch(() => undefined);
  return loaded === undefined && !existsSync('/sys/module/openvswitch') ? 'netdev' : 'system';
}

/** Ports of instances, by name. */
export async function switchPorts(): Promise<readonly string[]> {
  const query = ['--bare', '--columns=name', 'find', 'Interface', 'external_ids:vm-uuid!=""'] as const;
  return (await run(['ovs-vsctl', '--timeout=10', ...query]))
    .split('\n')
    .filter((name) => name !== '')
    .toSorted();
}

/** Bridges go, and with them the interfaces that Open vSwitch made on this machine. */
export async function removeBridges(processes: Processes): Promise<void> {
  if (processes.pid('ovsdb-server') === undefined) return;
  for (const name of (await run(['ovs-vsctl', '--timeout=10', 'list-br'])).split('\n').filter((line) => line !== '')) {
    await run(['ovs-vsctl', '--timeout=20', '--if-exists', 'del-br', name]);
  }
}
