// What wires the ports of the lab: Neutron's linuxbridge agent, its Open vSwitch agent, or OVN.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const NETWORKS = ['linuxbridge', 'ovs', 'ovn'] as const;
export type LabNetwork = (typeof NETWORKS)[number];

function fileOf(state: string): string {
  return join(state, 'network');
}

/** LIGHTERVISOR_NETWORK, or what the lab was made with. */
export function labNetwork(state: string): LabNetwork {
  const made = madeWith(state);
  const name = process.env['LIGHTERVISOR_NETWORK'] ?? made ?? 'linuxbridge';
  const known = NETWORKS.find((network) => network === name);
  if (known === undefined) throw new Error(`LIGHTERVISOR_NETWORK is ${name}: it may be ${NETWORKS.join(', ')}`);
  return known;
}

/** Ports of a lab are bound for one of them: it stays what it was made with. */
export function keepNetwork(state: string, network: LabNetwork): void {
  const made = madeWith(state);
  if (made !== undefined && made !== network) {
    throw new Error(`this lab was made with ${made}: npm run down -- --purge makes room for one with ${network}`);
  }
  mkdirSync(state, { recursive: true });
  writeFileSync(fileOf(state), `${network}\n`);
}

function madeWith(state: string): string | undefined {
  return existsSync(fileOf(state)) ? readFileSync(fileOf(state), 'utf8').trim() : undefined;
}

export const FIREWALLS = ['openvswitch', 'iptables_hybrid', 'noop'] as const;

/** Of the Open vSwitch agent: LIGHTERVISOR_FIREWALL. */
export function labFirewall(): (typeof FIREWALLS)[number] {
  const name = process.env['LIGHTERVISOR_FIREWALL'] ?? 'openvswitch';
  const known = FIREWALLS.find((firewall) => firewall === name);
  if (known === undefined) throw new Error(`LIGHTERVISOR_FIREWALL is ${name}: it may be ${FIREWALLS.join(', ')}`);
  return known;
}
