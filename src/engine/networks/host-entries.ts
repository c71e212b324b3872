// What DHCP and DNS are told of the nics on each network: kept in memory, so that a start need not look at every instance.
import { isIPv4 } from 'node:net';
import { DEFAULT_PROJECT } from '../db/projects.ts';

export interface HostKey {
  readonly project: string;
  readonly name: string;
}

export interface HostEntry extends HostKey {
  readonly device: string;
  /** Empty: none. Nics in different VLANs do not meet. */
  readonly vlan: string;
  readonly hwaddr: string;
  /** Empty: none is fixed. */
  readonly ipv4: string;
  readonly ipv6: string;
}

/**
 * What names of an instance's files begin with: `[PROJECT_]INSTANCE.`. Neither has "_" in it, and the dots of projects are escaped: no
 * instance's prefix is that of another.
 */
export function ownerPrefix({ project, name }: HostKey): string {
  return project === DEFAULT_PROJECT ? `${name}.` : `${project.replaceAll('.', '%2E')}_${name}.`;
}

export function fileOf(entry: Pick<HostEntry, 'project' | 'name' | 'device'>): string {
  return `${ownerPrefix(entry)}${entry.device.replaceAll('-', '--').replaceAll('/', '-')}`;
}

/** What DNS calls the instance. */
export function dnsName({ project, name }: HostKey): string {
  return project === DEFAULT_PROJECT ? name : `${name}.${project}`;
}

/** A line of dnsmasq's dhcp-host; undefined: there is nothing to say. */
export function entryLine(entry: HostEntry, named: boolean): string | undefined {
  const { hwaddr, ipv4, ipv6 } = entry;
  const words = [
    ...(ipv4 === '' ? [] : [ipv4]),
    ...(ipv6 === '' ? [] : [`[${ipv6}]`]),
    ...(named ? [dnsName(entry)] : []),
  ];
  return hwaddr === '' || words.length === 0 ? undefined : [hwaddr, ...words].join(',');
}

/** What a line says of addresses: of entries that an earlier daemon has written. */
export function addressesInLine(line: string): Pick<HostEntry, 'hwaddr' | 'ipv4' | 'ipv6'> {
  const [hwaddr = '', ...words] = line.trim().split(',');
  const six = words.find((word) => word.startsWith('[')) ?? '';
  return { hwaddr, ipv4: words.find((word) => isIPv4(word)) ?? '', ipv6: six.replaceAll(/[[\]]/gu, '') };
}

/** Whether the network has DNS: names must differ. */
export interface Naming {
  readonly named: boolean;
}

export class HostEntries {
  /** By network, then by file. */
  readonly #known = new Map<string, Map<string, HostEntry>>();

  /** True when something is new. Of two that cannot be told apart only the first is told. */
  replace(network: string, owner: HostKey, entries: readonly HostEntry[], naming: Naming): boolean {
    const known = this.#of(network);
    const prefix = ownerPrefix(owner);
    const before = [...known].filter(([file]) => file.startsWith(prefix));
    for (const [file] of before) known.delete(file);
    for (const entry of entries) {
      if (this.conflict(network, entry, naming) === undefined) known.set(fileOf(entry), entry);
    }
    const after = [...known].filter(([file]) => file.startsWith(prefix));
    return JSON.stringify(before) !== JSON.stringify(after);
  }

  files(network: string, prefix: string): readonly (readonly [string, HostEntry])[] {
    return [...this.#of(network)].filter(([file]) => file.startsWith(prefix));
  }

  forget(network: string): void {
    this.#known.delete(network);
  }

  /** LXD's complaint when another nic on the network has what this one has. */
  conflict(network: string, entry: HostEntry, { named }: Naming): string | undefined {
    const own = fileOf(entry);
    for (const [file, other] of this.#of(network)) {
      if (file === own || other.vlan !== entry.vlan) continue;
      // Also of two nics of one instance: its name would lead to both.
      if (named && dnsName(other).toLowerCase() === dnsName(entry).toLowerCase()) {
        return `Instance DNS name "${entry.name.toLowerCase()}" already used on network`;
      }
      if (entry.hwaddr !== '' && other.hwaddr === entry.hwaddr) {
        return `MAC address "${entry.hwaddr}" already defined on another NIC`;
      }
      const shared = [entry.ipv4, entry.ipv6].find((ip) => ip !== '' && (ip === other.ipv4 || ip === other.ipv6));
      if (shared !== undefined) return `IP address "${shared}" already defined on another NIC`;
    }
    return undefined;
  }

  #of(network: string): Map<string, HostEntry> {
    const known = this.#known.get(network) ?? new Map<string, HostEntry>();
    this.#known.set(network, known);
    return known;
  }
}
