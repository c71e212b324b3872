// Raw frames: made by hand, sent from within a container's network, and looked for elsewhere.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { run } from '../instances/daemon-support.ts';

const SEND = `
import socket, sys
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind((sys.argv[1], 0))
for frame in sys.argv[2:]:
    link.send(bytes.fromhex(frame))
`;
const LISTEN = `
import socket, sys
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
link.bind((sys.argv[1], 0))
print("ready", flush=True)
while True:
    frame, where = link.recvfrom(65536)
    if where[2] != socket.PACKET_OUTGOING:
        print(frame.hex(), flush=True)
`;

const mac = (address: string) => address.replaceAll(':', '');
const ipv4 = (address: string) =>
  address
    .split('.')
    .map((part) => Number(part).toString(16).padStart(2, '0'))
    .join('');
const hex = (value: number, bytes: number) => value.toString(16).padStart(bytes * 2, '0');

export interface Sender {
  readonly hwaddr: string;
  readonly ipv4: string;
  /** 32 hexadecimal digits. */
  readonly ipv6: string;
}

export function frame(from: string, to: string, type: number, payload: string): string {
  return `${mac(to)}${mac(from)}${hex(type, 2)}${payload}`;
}

export function arpReply(from: Sender, claim: { readonly hwaddr: string; readonly ipv4: string }, to: string): string {
  const body = `0001080006040002${mac(claim.hwaddr)}${ipv4(claim.ipv4)}${mac(to)}0a000001`;
  return frame(from.hwaddr, to, 0x0806, body);
}

// oxlint-disable-next-line max-params -- as the packet has them
export function ipv4Packet(from: Sender, source: string, to: string, marker: number, target = '10.99.0.3'): string {
  const header = `450000200000000040110000${ipv4(source)}${ipv4(target)}`;
  const payload = `${hex(4000, 2)}${hex(4001, 2)}000c0000${hex(marker, 4)}`;
  return frame(from.hwaddr, to, 0x0800, `${withChecksum(header)}${payload}`);
}

/** Bridges that call iptables drop packets without one. */
function withChecksum(header: string): string {
  const words = header.match(/.{4}/g) ?? [];
  const sum = words.reduce((total, word) => total + Number.parseInt(word, 16), 0);
  const folded = (sum & 0xffff) + (sum >> 16);
  return `${header.slice(0, 20)}${hex(0xffff - folded, 2)}${header.slice(24)}`;
}

export function ipv6Packet(from: Sender, source: string, to: string, next: { header: number; body: string }): string {
  const length = hex(next.body.length / 2, 2);
  return frame(
    from.hwaddr,
    to,
    0x86dd,
    `60000000${length}${hex(next.header, 1)}ff${source}fe800000000000000000000000000099${next.body}`,
  );
}

/** ICMPv6 neighbour advertisement with the option that names a MAC address. */
export function advertisement(target: string, hwaddr: string): { header: number; body: string } {
  return { header: 58, body: `8800000020000000${target}0201${mac(hwaddr)}` };
}

/** The same behind a header that hides where it begins. */
export function hidden({ body, header }: { header: number; body: string }): { header: number; body: string } {
  return { header: 0, body: `${hex(header, 1)}00010400000000${body}` };
}

export const routerAdvertisement = { header: 58, body: '8600000040000708000000000000 0000'.replace(' ', '') };

/** Sends from interface `link` of the network of process `pid`. */
export async function send(pid: number, link: string, frames: readonly string[]): Promise<void> {
  await run('nsenter', ['-t', String(pid), '-n', '/usr/bin/python3', '-c', SEND, link, ...frames]);
}

export class Listener {
  readonly #child: ChildProcess;
  readonly #output: Promise<string>;

  private constructor(child: ChildProcess, output: Promise<string>) {
    this.#child = child;
    this.#output = output;
  }

  /** At interface `link` of the network of process `pid`; undefined: of our own. */
  static async start(pid: number | undefined, link: string): Promise<Listener> {
    const enter = pid === undefined ? [] : ['nsenter', '-t', String(pid), '-n'];
    const [program, ...args] = [...enter, '/usr/bin/python3', '-c', LISTEN, link];
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    const output = text(child.stdout);
    await once(child.stdout, 'data');
    return new Listener(child, output);
  }

  /** Everything that arrived, frame by frame. */
  async stop(): Promise<ReadonlySet<string>> {
    this.#child.kill('SIGTERM');
    return new Set((await this.#output).split('\n'));
  }
}
