// lighter version, lighter info: the engine, or one instance.
import type { Command } from 'commander';
import { instancePath } from '#src/client/instances.ts';
import type {
  Instance,
  InstanceBackup,
  InstanceSnapshot,
  InstanceState,
  InstanceStateNetwork,
} from '#src/client/wire.ts';
import { kindOf } from '#src/lib/errors.ts';
import type { Cli, Target } from '../cli.ts';
import { formatBytes, formatTime, formatYaml } from '../format.ts';
import { listOf } from '../resource.ts';
import { renderTable } from '../table.ts';
import { instanceLog } from './console.ts';

export function addServerCommands(program: Command, cli: Cli): void {
  program
    .command('version')
    .description('Show client and engine versions')
    .argument('[remote:]')
    .addHelpText('after', '\nExample:\n  lighter version')
    .action(async (remote: string | undefined) => {
      cli.print(`Client version: ${cli.terminal.version}`);
      cli.print(`Server version: ${await serverVersion(cli, remote ?? '')}`);
    });
  program
    .command('info')
    .description('Show information about the engine, or about an instance')
    .argument('[instance]', 'absent: the engine')
    .option('--show-log', "Show the instance's last log lines")
    .option('--resources', 'Show the resources of the machine')
    .addHelpText('after', '\nExamples:\n  lighter info\n  lighter info web --show-log')
    .action(async (text: string | undefined, options: { showLog?: boolean; resources?: boolean }) => {
      const target = await cli.at(text ?? '');
      const { client } = target;
      if (target.name !== '') await showInstance(cli, target, options.showLog === true);
      else if (options.resources === true) cli.terminal.out(formatYaml(await client.resources(cli.signal)));
      else cli.terminal.out(formatYaml(await client.server(cli.signal)));
    });
}

async function serverVersion(cli: Cli, remote: string): Promise<string> {
  try {
    const { client } = await cli.at(remote);
    return (await client.server(cli.signal)).environment?.server_version ?? 'unknown (not trusted)';
  } catch (error) {
    if (kindOf(error) === 'unavailable') return 'unreachable';
    throw error;
  }
}

async function showInstance(cli: Cli, target: Target, showLog: boolean): Promise<void> {
  const { client, name } = target;
  const instance = await client.instances.get(name, cli.signal);
  const state = await client.instances.state(name, cli.signal);
  for (const line of [...headLines(instance, state), ...resourceLines(state)]) cli.print(line);
  cli.terminal.out(snapshotTable(await listOf<InstanceSnapshot>(cli, client, `${instancePath(name)}/snapshots`)));
  cli.terminal.out(backupTable(await listOf<InstanceBackup>(cli, client, `${instancePath(name)}/backups`)));
  if (!showLog) return;
  cli.print('\nLog:\n');
  cli.print(await instanceLog(cli, target));
}

function snapshotTable(snapshots: readonly InstanceSnapshot[]): string {
  const rows = snapshots.map(({ name, created_at, expires_at, stateful }) => [
    name.slice(name.lastIndexOf('/') + 1),
    formatTime(created_at) ?? '',
    formatTime(expires_at) ?? '',
    stateful ? 'YES' : 'NO',
  ]);
  const headers = ['NAME', 'TAKEN AT', 'EXPIRES AT', 'STATEFUL'];
  return rows.length === 0 ? '' : `\nSnapshots:\n${renderTable(headers, rows)}`;
}

function backupTable(backups: readonly InstanceBackup[]): string {
  const rows = backups.map((backup) => [
    backup.name.slice(backup.name.lastIndexOf('/') + 1),
    formatTime(backup.created_at) ?? '',
    formatTime(backup.expires_at) ?? '',
    backup.instance_only ? 'YES' : 'NO',
    backup.optimized_storage ? 'YES' : 'NO',
  ]);
  const headers = ['NAME', 'TAKEN AT', 'EXPIRES AT', 'INSTANCE ONLY', 'OPTIMIZED STORAGE'];
  return rows.length === 0 ? '' : `\nBackups:\n${renderTable(headers, rows)}`;
}

function headLines(instance: Instance, state: InstanceState): readonly string[] {
  const created = formatTime(instance.created_at);
  const used = formatTime(instance.last_used_at);
  return [
    `Name: ${instance.name}`,
    ...(instance.description === '' ? [] : [`Description: ${instance.description}`]),
    `Status: ${instance.status.toUpperCase()}`,
    `Type: ${instance.type}${instance.ephemeral ? ' (ephemeral)' : ''}`,
    `Architecture: ${instance.architecture}`,
    ...(state.pid > 0 ? [`PID: ${state.pid}`] : []),
    ...(created === undefined ? [] : [`Created: ${created}`]),
    ...(used === undefined ? [] : [`Last Used: ${used}`]),
  ];
}

function resourceLines(state: InstanceState): readonly string[] {
  if (state.pid <= 0) return [];
  const { usage = 0, usage_peak: peak = 0 } = state.memory ?? {};
  return [
    '\nResources:',
    `  Processes: ${state.processes}`,
    '  CPU usage:',
    `    CPU usage (in seconds): ${Math.floor((state.cpu?.usage ?? 0) / 1e9)}`,
    '  Memory usage:',
    `    Memory (current): ${formatBytes(usage)}`,
    ...(peak > 0 ? [`    Memory (peak): ${formatBytes(peak)}`] : []),
    '  Network usage:',
    ...Object.entries(state.network ?? {})
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .flatMap(([name, network]) => networkLines(name, network)),
  ];
}

function networkLines(name: string, network: InstanceStateNetwork): readonly string[] {
  const { counters = {} } = network;
  return [
    `    ${name}:`,
    `      Type: ${network.type}`,
    `      State: ${network.state.toUpperCase()}`,
    ...(network.host_name === '' ? [] : [`      Host interface: ${network.host_name}`]),
    ...(network.hwaddr === '' ? [] : [`      MAC address: ${network.hwaddr}`]),
    `      MTU: ${network.mtu}`,
    `      Bytes received: ${formatBytes(counters['bytes_received'] ?? 0)}`,
    `      Bytes sent: ${formatBytes(counters['bytes_sent'] ?? 0)}`,
    `      Packets received: ${counters['packets_received'] ?? 0}`,
    `      Packets sent: ${counters['packets_sent'] ?? 0}`,
    '      IP addresses:',
    ...(network.addresses ?? []).map(
      ({ family, address, netmask, scope }) => `        ${`${family}:`.padEnd(6)} ${address}/${netmask} (${scope})`,
    ),
  ];
}
