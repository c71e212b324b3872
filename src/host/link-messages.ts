// Codes rtnetlink's messages about interfaces (struct ifinfomsg and its attributes).
import { ipBytes, parseIp } from '#src/lib/ip.ts';
import type { LinkKind, NewLink, VxlanKind } from './links.ts';
import { attribute, nested, textAttribute, uint32Attribute, uint8Attribute } from './netlink-socket.ts';

const IFLA = { address: 1, name: 3, mtu: 4, link: 5, master: 10, queueLength: 13, linkInfo: 18, pid: 19 } as const;
const INFO = { kind: 1, data: 2 } as const;
const IFF_UP = 1;
const VETH_PEER = 1;
const MACVLAN_MODE = 1;
const MACVLAN_BRIDGE = 4;
const IPVLAN_MODE = 1;
const IPVLAN_MODES = { l2: 0, l3s: 2 } as const;
const VLAN = { id: 1, flags: 2 } as const;
const VLAN_GVRP = 2;
const VXLAN = { id: 1, group: 2, link: 3, local: 4, ttl: 5, port: 15, group6: 16, local6: 17 } as const;
const GRE = { local: 6, remote: 7 } as const;

/** Numbers of interfaces by their names. */
export type IndexOf = (name: string) => number;

export interface LinkFields {
  readonly index?: number;
  readonly name?: string;
  readonly mtu?: number;
  readonly queueLength?: number;
  readonly hwaddr?: string;
  readonly up?: boolean;
  /** Index; 0: none. */
  readonly master?: number;
  /** Of a process whose namespace it moves to. */
  readonly pid?: number;
}

export function linkMessage(fields: LinkFields, more: readonly Buffer[] = []): Buffer {
  const { index = 0, name, mtu, queueLength, hwaddr, up, master, pid } = fields;
  const header = Buffer.alloc(16); // family, type, index at 4, flags at 8, change mask at 12
  header.writeInt32LE(index, 4);
  if (up !== undefined) {
    header.writeUInt32LE(up ? IFF_UP : 0, 8);
    header.writeUInt32LE(IFF_UP, 12);
  }
  const given = <T>(value: T | undefined, code: (value: T) => Buffer): readonly Buffer[] =>
    value === undefined ? [] : [code(value)];
  return Buffer.concat([
    header,
    ...given(name, (text) => textAttribute(IFLA.name, text)),
    ...given(mtu, (bytes) => uint32Attribute(IFLA.mtu, bytes)),
    ...given(queueLength, (packets) => uint32Attribute(IFLA.queueLength, packets)),
    ...given(hwaddr, (text) => attribute(IFLA.address, macBytes(text))),
    ...given(master, (number) => uint32Attribute(IFLA.master, number)),
    ...given(pid, (number) => uint32Attribute(IFLA.pid, number)),
    ...more,
  ]);
}

export function newLinkMessage(link: NewLink, indexOf: IndexOf): Buffer {
  const { master, ...settings } = link;
  const parent = 'parent' in link ? [uint32Attribute(IFLA.link, indexOf(link.parent))] : [];
  const data = kindData(link, indexOf);
  const info = [textAttribute(INFO.kind, link.kind), ...(data.length > 0 ? [nested(INFO.data, ...data)] : [])];
  const fields = { ...settings, ...(master !== undefined && { master: indexOf(master) }) };
  return linkMessage(fields, [...parent, nested(IFLA.linkInfo, ...info)]);
}

function kindData(link: LinkKind & Pick<LinkFields, 'mtu' | 'queueLength'>, indexOf: IndexOf): readonly Buffer[] {
  switch (link.kind) {
    case 'veth': {
      const { mtu, queueLength } = link;
      const both = { ...(mtu !== undefined && { mtu }), ...(queueLength !== undefined && { queueLength }) };
      return [nested(VETH_PEER, linkMessage({ ...both, ...link.peer }))];
    }
    case 'macvlan':
      return [uint32Attribute(MACVLAN_MODE, MACVLAN_BRIDGE)];
    case 'ipvlan':
      return [uint16Attribute(IPVLAN_MODE, IPVLAN_MODES[link.mode])];
    case 'vlan':
      return vlanData(link.id, link.gvrp);
    case 'vxlan':
      return vxlanData(link, indexOf);
    case 'gretap':
      return [ipAttribute(GRE.local, link.local), ipAttribute(GRE.remote, link.remote)];
    default:
      return [];
  }
}

function uint16Attribute(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return attribute(type, bytes);
}

function vlanData(id: number, gvrp: boolean): readonly Buffer[] {
  const flags = Buffer.alloc(8);
  flags.writeUInt32LE(gvrp ? VLAN_GVRP : 0, 0);
  flags.writeUInt32LE(VLAN_GVRP, 4);
  return [uint16Attribute(VLAN.id, id), attribute(VLAN.flags, flags)];
}

function vxlanData(link: VxlanKind, indexOf: IndexOf): readonly Buffer[] {
  const { id, local, interface: parent, port, ttl } = link;
  const remote = link.remote ?? link.group;
  const number = Buffer.alloc(2);
  if (port !== undefined) number.writeUInt16BE(port);
  const family = (address: string, four: number, six: number) =>
    ipAttribute(parseIp(address)?.family === 6 ? six : four, address);
  return [
    uint32Attribute(VXLAN.id, id),
    ...(remote === undefined ? [] : [family(remote, VXLAN.group, VXLAN.group6)]),
    ...(local === undefined ? [] : [family(local, VXLAN.local, VXLAN.local6)]),
    ...(parent === undefined ? [] : [uint32Attribute(VXLAN.link, indexOf(parent))]),
    ...(ttl === undefined ? [] : [uint8Attribute(VXLAN.ttl, ttl)]),
    ...(port === undefined ? [] : [attribute(VXLAN.port, number)]),
  ];
}

function ipAttribute(type: number, text: string): Buffer {
  const address = parseIp(text);
  return attribute(type, address ? ipBytes(address) : Buffer.alloc(4));
}

function macBytes(hwaddr: string): Buffer {
  return Buffer.from(hwaddr.replaceAll(':', ''), 'hex');
}
