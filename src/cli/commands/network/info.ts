// lighter network info: a network as it runs.
import type { Command } from 'commander';
import type { NetworkState } from '#src/client/wire.ts';
import type { Cli } from '../../cli.ts';
import { formatBytes } from '../../format.ts';
import { NETWORK_KIND } from './kinds.ts';

export function addNetworkInfo(network: Command, cli: Cli): void {
  network
    .command('info')
    .description('Get runtime information on networks')
    .argument('<network>')
    .addHelpText('after', '\nExample:\n  lighter network info br0')
    .action(async (text: string) => {
      const { client, name } = await cli.at(text);
      const path = `${NETWORK_KIND.path([name])}/state`;
      const { envelope } = await client.request('GET', path, { signal: cli.signal });
      for (const line of lines(name, envelope.metadata as NetworkState)) cli.print(line);
    });
}

function lines(
  name: string,
  { addresses, bridge, counters = {}, hwaddr, mtu, state, type }: NetworkState,
): readonly string[] {
  return [
    `Name: ${name}`,
    `MAC address: ${hwaddr}`,
    `MTU: ${mtu}`,
    `State: ${state}`,
    `Type: ${type}`,
    ...((addresses ?? []).length === 0 ? [] : ['', 'IP addresses:']),
    ...(addresses ?? []).map(({ family, address, netmask, scope }) => `  ${family}\t${address}/${netmask} (${scope})`),
    '',
    'Network usage:',
    `  Bytes received: ${formatBytes(count(counters, 'bytes_received'))}`,
    `  Bytes sent: ${formatBytes(count(counters, 'bytes_sent'))}`,
    `  Packets received: ${count(counters, 'packets_received')}`,
    `  Packets sent: ${count(counters, 'packets_sent')}`,
    ...(bridge ? bridgeLines(bridge) : []),
  ];
}

function count(counters: Readonly<Record<string, number>>, name: string): number {
  return counters[name] ?? 0;
}

function bridgeLines(bridge: NonNullable<NetworkState['bridge']>): readonly string[] {
  return [
    '',
    'Bridge:',
    `  ID: ${bridge.id}`,
    `  STP: ${bridge.stp}`,
    `  Forward delay: ${bridge.forward_delay}`,
    `  Default VLAN ID: ${bridge.vlan_default}`,
    `  VLAN filtering: ${bridge.vlan_filtering}`,
    `  Upper devices: ${(bridge.upper_devices ?? []).join(', ')}`,
  ];
}
