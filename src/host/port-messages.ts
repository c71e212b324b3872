// Codes rtnetlink's messages about queueing (struct tcmsg) and about ports of bridges.
import { type IpAddress, ipBytes } from '#src/lib/ip.ts';
import type { BridgeVlan } from './ports.ts';
import { attribute, nested, textAttribute, uint8Attribute } from './netlink-socket.ts';

const TCA = { kind: 1, options: 2 } as const;
const HTB = { parameters: 1, init: 2, rate64: 6, ceil64: 7 } as const;
const HTB_VERSION = 3;
const RATE_TO_QUANTUM = 10;
const LINKLAYER_ETHERNET = 1;
const ROOT = 0xffffffff;
const QDISC = 0x00010000;
const DEFAULT_CLASS = 0x10;
const MAX_U32 = 0xffffffff;
/** The kernel counts queueing time in ticks of this many nanoseconds. */
const TICK_NS = 64;
const MIN_BURST_BYTES = 1600;
const MIN_QUANTUM = 1600;
const MAX_QUANTUM = 200_000;

const AF_INET = 2;
const AF_INET6 = 10;
const NDA_DESTINATION = 1;
const NTF_USE = 1;
const NUD_REACHABLE = 2;
const AF_BRIDGE = 7;
const IFLA = { portInfo: 12, families: 26 } as const;
const PORT_ISOLATED = 33;
const VLAN_INFO = 2;
const VLAN_UNTAGGED = 2 | 4; // PVID and untagged

interface TrafficObject {
  readonly index: number;
  readonly handle: number;
  readonly parent: number;
}

function trafficHeader({ index, handle, parent }: TrafficObject): Buffer {
  const header = Buffer.alloc(20);
  header.writeInt32LE(index, 4);
  header.writeUInt32LE(handle, 8);
  header.writeUInt32LE(parent, 12);
  return header;
}

/** The root queue of an interface: htb whose one class takes everything. */
export function rootQueueMessage(index: number): Buffer {
  const init = Buffer.alloc(20); // struct tc_htb_glob: version, rate2quantum, defcls, debug, direct_pkts
  init.writeUInt32LE(HTB_VERSION, 0);
  init.writeUInt32LE(RATE_TO_QUANTUM, 4);
  init.writeUInt32LE(DEFAULT_CLASS, 8);
  return Buffer.concat([
    trafficHeader({ index, handle: QDISC, parent: ROOT }),
    textAttribute(TCA.kind, 'htb'),
    nested(TCA.options, attribute(HTB.init, init)),
  ]);
}

/** Of the interface's root queue, whatever it is. */
export function noQueueMessage(index: number): Buffer {
  return trafficHeader({ index, handle: 0, parent: ROOT });
}

/** The one class, and its rate. A millisecond's worth may go at once: timers are not finer. */
export function rateClassMessage(index: number, bitsPerSecond: number): Buffer {
  const rate = Math.max(1, Math.floor(bitsPerSecond / 8));
  const burst = Math.max(MIN_BURST_BYTES, Math.floor(rate / 1000));
  const ticks = Math.min(MAX_U32, Math.ceil((burst * 1e9) / rate / TICK_NS));
  const quantum = Math.min(MAX_QUANTUM, Math.max(MIN_QUANTUM, Math.floor(rate / RATE_TO_QUANTUM)));
  const parameters = Buffer.alloc(44); // struct tc_htb_opt: rate, ceil, buffer, cbuffer, quantum, level, prio
  for (const at of [0, 12]) {
    parameters.writeUInt8(LINKLAYER_ETHERNET, at + 1);
    parameters.writeUInt32LE(Math.min(MAX_U32, rate), at + 8);
  }
  parameters.writeUInt32LE(ticks, 24);
  parameters.writeUInt32LE(ticks, 28);
  parameters.writeUInt32LE(quantum, 32);
  const wide = Buffer.alloc(8);
  wide.writeBigUInt64LE(BigInt(rate));
  const wides = rate > MAX_U32 ? [attribute(HTB.rate64, wide), attribute(HTB.ceil64, wide)] : [];
  return Buffer.concat([
    trafficHeader({ index, handle: QDISC | DEFAULT_CLASS, parent: QDISC }),
    textAttribute(TCA.kind, 'htb'),
    nested(TCA.options, attribute(HTB.parameters, parameters), ...wides),
  ]);
}

/** struct ndmsg: family, index at 4, state at 8, flags at 10. `use`: the kernel is to look for it now. */
export function neighbourMessage(index: number, address: IpAddress, use = false): Buffer {
  const header = Buffer.alloc(12);
  header.writeUInt8(address.family === 4 ? AF_INET : AF_INET6, 0);
  header.writeInt32LE(index, 4);
  header.writeUInt8(use ? NTF_USE : 0, 10);
  return Buffer.concat([header, attribute(NDA_DESTINATION, ipBytes(address))]);
}

/** Of a neighbour as the kernel tells of it. */
export function isReachable(body: Buffer): boolean {
  return (body.readUInt16LE(8) & NUD_REACHABLE) !== 0;
}

/** struct ifinfomsg of the bridge family: index at 4. */
function portMessage(index: number, ...values: readonly Buffer[]): Buffer {
  const header = Buffer.alloc(16);
  header.writeUInt8(AF_BRIDGE, 0);
  header.writeInt32LE(index, 4);
  return Buffer.concat([header, ...values]);
}

export function isolationMessage(index: number, isolated: boolean): Buffer {
  return portMessage(index, nested(IFLA.portInfo, uint8Attribute(PORT_ISOLATED, isolated ? 1 : 0)));
}

/** struct bridge_vlan_info: flags, id. */
export function portVlanMessage(index: number, { id, untagged }: BridgeVlan): Buffer {
  const info = Buffer.alloc(4);
  info.writeUInt16LE(untagged ? VLAN_UNTAGGED : 0, 0);
  info.writeUInt16LE(id, 2);
  return portMessage(index, nested(IFLA.families, attribute(VLAN_INFO, info)));
}
