// What a client sends that gives its address back (RFC 2131 and 8415): sent for instances that are gone, so that their addresses are free.
import { randomBytes } from 'node:crypto';
import { ipBytes, type IpAddress, parseIp } from '#src/lib/ip.ts';

/** A line of dnsmasq's file of leases. */
export interface LeaseLine {
  readonly address: IpAddress;
  /** MAC address of DHCPv4, IAID of DHCPv6. */
  readonly identity: string;
  readonly name: string;
  /** Client id of DHCPv4, DUID of DHCPv6. */
  readonly client: string;
}

export interface LeaseFile {
  readonly leases: readonly LeaseLine[];
  /** The server's DUID; undefined: it has none yet. */
  readonly serverDuid: Buffer | undefined;
}

/** Written by a process that we do not trust: what is no lease is passed over. */
export function parseLeaseFile(text: string): LeaseFile {
  const lines = text.split('\n').map((line) => line.split(' '));
  const leases = lines.flatMap(([, identity = '', address = '', name = '', client = '']) => {
    const parsed = parseIp(address);
    return parsed ? [{ address: parsed, identity: identity.toLowerCase(), name, client }] : [];
  });
  const [, duid = ''] = lines.find(([word]) => word === 'duid') ?? [];
  return { leases, serverDuid: hexBytes(duid) };
}

const HEADER_BYTES = 236;
const COOKIE = Buffer.from('63825363', 'hex');
const OPTION = { type: 53, server: 54, end: 255 } as const;
const RELEASE = 7;
const ETHERNET = { type: 1, bytes: 6 } as const;

/** DHCPRELEASE; undefined for a lease that is not one of an Ethernet card. */
export function release4({ address, identity }: LeaseLine, server: IpAddress): Buffer | undefined {
  const hwaddr = hexBytes(identity);
  if (hwaddr?.length !== ETHERNET.bytes) return undefined;
  const header = Buffer.alloc(HEADER_BYTES); // op, htype, hlen, hops, xid, secs, flags, ciaddr, …, chaddr at 28
  header.set([1, ETHERNET.type, ETHERNET.bytes]);
  randomBytes(4).copy(header, 4);
  ipBytes(address).copy(header, 12);
  hwaddr.copy(header, 28);
  const options = [OPTION.type, 1, RELEASE, OPTION.server, 4, ...ipBytes(server), OPTION.end];
  return Buffer.concat([header, COOKIE, Buffer.from(options)]);
}

const MESSAGE6 = 8;
const OPTION6 = { client: 1, server: 2, association: 3, address: 5 } as const;

/** Release of a non-temporary address; undefined for a lease of another kind. */
export function release6({ address, identity, client }: LeaseLine, serverDuid: Buffer): Buffer | undefined {
  const duid = hexBytes(client);
  if (!duid || !/^\d{1,10}$/u.test(identity) || Number(identity) > 0xffff_ffff) return undefined;
  const association = Buffer.alloc(12); // IAID, T1, T2
  association.writeUInt32BE(Number(identity), 0);
  const lifetimes = Buffer.alloc(8);
  return Buffer.concat([
    Buffer.from([MESSAGE6]),
    randomBytes(3),
    option6(OPTION6.client, duid),
    option6(OPTION6.server, serverDuid),
    option6(OPTION6.association, association, option6(OPTION6.address, ipBytes(address), lifetimes)),
  ]);
}

function option6(code: number, ...content: readonly Buffer[]): Buffer {
  const data = Buffer.concat(content);
  const head = Buffer.alloc(4);
  head.writeUInt16BE(code, 0);
  head.writeUInt16BE(data.length, 2);
  return Buffer.concat([head, data]);
}

function hexBytes(text: string): Buffer | undefined {
  return /^[0-9a-f]{2}(:[0-9a-f]{2}){0,127}$/iu.test(text) ? Buffer.from(text.replaceAll(':', ''), 'hex') : undefined;
}
