// Interfaces and addresses of another network namespace, over rtnetlink from our own: nothing is forked, no namespace entered.
import { AppError } from '#src/lib/errors.ts';
import { bytesValue, ipText } from '#src/lib/ip.ts';
import { attributes, cText, int32Attribute, RouteSocket } from './netlink-socket.ts';

export interface InterfaceAddress {
  readonly family: 'inet' | 'inet6';
  readonly address: string;
  readonly prefixLength: number;
  readonly scope: 'global' | 'link' | 'local';
}

export interface InterfaceCounters {
  readonly bytesReceived: number;
  readonly bytesSent: number;
  readonly packetsReceived: number;
  readonly packetsSent: number;
  readonly errorsReceived: number;
  readonly errorsSent: number;
  readonly droppedReceived: number;
  readonly droppedSent: number;
}

export interface NetworkInterface {
  readonly index: number;
  readonly name: string;
  readonly type: 'broadcast' | 'loopback' | 'point-to-point' | 'unknown';
  readonly up: boolean;
  readonly mtu: number;
  readonly hwaddr: string;
  readonly counters: InterfaceCounters;
  readonly addresses: readonly InterfaceAddress[];
}

const RTM_GETLINK = 18;
const RTM_GETADDR = 22;
const RTM_NEWNSID = 88;
const RTM_GETNSID = 90;
const NETNSA_NSID = 1;
const NETNSA_PID = 2;
const IFLA_TARGET_NETNSID = 46;
const IFA_TARGET_NETNSID = 10;

/** Of the namespace of process `pid`. Blocks for the time the kernel takes to answer (well under a millisecond). */
export function readNamespaceInterfaces(pid: number): readonly NetworkInterface[] {
  const socket = new RouteSocket();
  try {
    const nsid = namespaceId(socket, pid);
    const links = socket.dump(
      RTM_GETLINK,
      Buffer.concat([Buffer.alloc(16), int32Attribute(IFLA_TARGET_NETNSID, nsid)]),
    );
    const addresses = socket.dump(
      RTM_GETADDR,
      Buffer.concat([Buffer.alloc(8), int32Attribute(IFA_TARGET_NETNSID, nsid)]),
    );
    const found = addresses.map(parseAddress);
    return links.map((link) => parseLink(link, found));
  } finally {
    socket.close();
  }
}

/** The number of that namespace in ours, given by us if it has none; it goes away with the namespace. */
function namespaceId(socket: RouteSocket, pid: number): number {
  const family = Buffer.alloc(4); // struct rtgenmsg, aligned
  const ofPid = int32Attribute(NETNSA_PID, pid);
  const known = socket.ask(RTM_GETNSID, Buffer.concat([family, ofPid]));
  const nsid = known && attributes(known, 4).get(NETNSA_NSID)?.readInt32LE(0);
  if (nsid !== undefined && nsid >= 0) return nsid;
  socket.ask(RTM_NEWNSID, Buffer.concat([family, int32Attribute(NETNSA_NSID, -1), ofPid]));
  const given = socket.ask(RTM_GETNSID, Buffer.concat([family, ofPid]));
  const made = given && attributes(given, 4).get(NETNSA_NSID)?.readInt32LE(0);
  if (made === undefined || made < 0)
    throw new AppError('internal', `no id for the network namespace of process ${pid}`);
  return made;
}

const IFLA = { address: 1, name: 3, mtu: 4, stats64: 23 } as const;
const IFF = { up: 0x1, broadcast: 0x2, loopback: 0x8, pointToPoint: 0x10 } as const;

/** struct ifinfomsg: family, type at 2, index at 4, flags at 8. */
function parseLink(
  body: Buffer,
  addresses: readonly (InterfaceAddress & { readonly index: number })[],
): NetworkInterface {
  const index = body.readInt32LE(4);
  const flags = body.readUInt32LE(8);
  const found = attributes(body, 16);
  const type = typeOf(flags);
  const hwaddr = type === 'loopback' ? '' : macText(found.get(IFLA.address));
  return {
    index,
    name: cText(found.get(IFLA.name)),
    type,
    up: (flags & IFF.up) !== 0,
    mtu: found.get(IFLA.mtu)?.readUInt32LE(0) ?? 0,
    hwaddr,
    counters: counters(found.get(IFLA.stats64)),
    addresses: addresses.filter((one) => one.index === index).map(({ index: _index, ...address }) => address),
  };
}

function typeOf(flags: number): NetworkInterface['type'] {
  if ((flags & IFF.loopback) !== 0) return 'loopback';
  if ((flags & IFF.broadcast) !== 0) return 'broadcast';
  return (flags & IFF.pointToPoint) !== 0 ? 'point-to-point' : 'unknown';
}

function macText(bytes: Buffer | undefined): string {
  return bytes ? [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':') : '';
}

/** struct rtnl_link_stats64: rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped. */
function counters(bytes: Buffer | undefined): InterfaceCounters {
  const at = (index: number): number => (bytes ? Number(bytes.readBigUInt64LE(index * 8)) : 0);
  return {
    packetsReceived: at(0),
    packetsSent: at(1),
    bytesReceived: at(2),
    bytesSent: at(3),
    errorsReceived: at(4),
    errorsSent: at(5),
    droppedReceived: at(6),
    droppedSent: at(7),
  };
}

const AF_INET = 2;
const IFA = { address: 1, local: 2 } as const;
const SCOPE_LINK = 253;
const SCOPE_HOST = 254;

/** struct ifaddrmsg: family, prefix length at 1, scope at 3, index at 4. */
function parseAddress(body: Buffer): InterfaceAddress & { readonly index: number } {
  const found = attributes(body, 8);
  const bytes = found.get(IFA.local) ?? found.get(IFA.address) ?? Buffer.alloc(0);
  const inet = body.readUInt8(0) === AF_INET;
  return {
    index: body.readUInt32LE(4),
    family: inet ? 'inet' : 'inet6',
    address: ipText({ family: inet ? 4 : 6, value: bytesValue(bytes) }),
    prefixLength: body.readUInt8(1),
    scope: scopeOf(body.readUInt8(3)),
  };
}

function scopeOf(scope: number): InterfaceAddress['scope'] {
  if (scope === SCOPE_LINK) return 'link';
  return scope === SCOPE_HOST ? 'local' : 'global';
}
