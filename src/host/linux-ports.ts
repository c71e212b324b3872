// Ports over rtnetlink.
import { setTimeout as sleep } from 'node:timers/promises';
import { AppError } from '#src/lib/errors.ts';
import { parseIp } from '#src/lib/ip.ts';
import { Ethtool } from './ethtool.ts';
import { KernelError } from './kernel.ts';
import type { Links } from './links.ts';
import { changeNetlink, type NetlinkMessage, RouteSocket } from './netlink-socket.ts';
import {
  isolationMessage,
  isReachable,
  neighbourMessage,
  noQueueMessage,
  portVlanMessage,
  rateClassMessage,
  rootQueueMessage,
} from './port-messages.ts';
import type { BridgeVlan, Ports } from './ports.ts';

const RTM = {
  delLink: 17,
  setLink: 19,
  newNeighbour: 28,
  delNeighbour: 29,
  getNeighbour: 30,
  newQueue: 36,
  delQueue: 37,
  newClass: 40,
} as const;
const FLAG = { replace: 0x100, create: 0x400 } as const;

const POLL_MS = 10;

export class LinuxPorts implements Ports {
  readonly #links: Pick<Links, 'find'>;

  constructor(links: Pick<Links, 'find'>) {
    this.#links = links;
  }

  async #indexOf(name: string): Promise<number> {
    const link = await this.#links.find(name);
    if (!link) throw new AppError('not_found', `no network interface "${name}"`);
    return link.index;
  }

  async setRate(name: string, bitsPerSecond: number | null): Promise<void> {
    const index = await this.#indexOf(name);
    if (bitsPerSecond === null) return removeQueue(index);
    const flags = FLAG.create | FLAG.replace;
    const setClass = { type: RTM.newClass, flags, body: rateClassMessage(index, bitsPerSecond) };
    // A queue that is there keeps what waits in it.
    if (await succeeds(setClass)) return;
    await changeNetlink({ type: RTM.newQueue, flags, body: rootQueueMessage(index) });
    await changeNetlink(setClass);
  }

  async leaveChecksums(name: string, leaves: boolean): Promise<void> {
    using ethtool = new Ethtool();
    if (ethtool.leaveChecksums(name, leaves)) return;
    throw new AppError('internal', `the checksums of what "${name}" sends cannot be set`);
  }

  async setIsolated(name: string, isolated: boolean): Promise<void> {
    const body = isolationMessage(await this.#indexOf(name), isolated);
    await changeNetlink({ type: RTM.setLink, body });
  }

  async isTaken(name: string, text: string, waitMs: number): Promise<boolean> {
    const index = await this.#indexOf(name);
    const address = parseIp(text);
    if (!address) throw new AppError('invalid', `not an IP address: "${text}"`);
    const known = neighbourMessage(index, address);
    // What was known of it before says nothing about now.
    await unless('ENOENT', () => changeNetlink({ type: RTM.delNeighbour, body: known }));
    const flags = FLAG.create | FLAG.replace;
    await changeNetlink({ type: RTM.newNeighbour, flags, body: neighbourMessage(index, address, true) });
    const end = performance.now() + waitMs;
    let found = false;
    while (!found && performance.now() < end) {
      await sleep(POLL_MS);
      found = answers(known);
    }
    if (!found) await unless('ENOENT', () => changeNetlink({ type: RTM.delNeighbour, body: known }));
    return found;
  }

  async addVlan(name: string, vlan: BridgeVlan): Promise<void> {
    await changeNetlink({ type: RTM.setLink, body: portVlanMessage(await this.#indexOf(name), vlan) });
  }

  async removeVlan(name: string, id: number): Promise<void> {
    const body = portVlanMessage(await this.#indexOf(name), { id, untagged: false });
    await changeNetlink({ type: RTM.delLink, body });
  }
}

function answers(neighbour: Buffer): boolean {
  const socket = new RouteSocket();
  try {
    const body = socket.ask(RTM.getNeighbour, neighbour);
    return body !== undefined && isReachable(body);
  } catch (error) {
    if (error instanceof KernelError && error.errno === 'ENOENT') return false;
    throw error;
  } finally {
    socket.close();
  }
}

async function unless(errno: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof KernelError) || error.errno !== errno) throw error;
  }
}

/** One that sends without a limit has no queue of ours to remove. */
async function removeQueue(index: number): Promise<void> {
  try {
    await changeNetlink({ type: RTM.delQueue, body: noQueueMessage(index) });
  } catch (error) {
    if (!(error instanceof KernelError) || (error.errno !== 'ENOENT' && error.errno !== 'EINVAL')) throw error;
  }
}

/** False: there is no queue for it. */
async function succeeds(message: NetlinkMessage): Promise<boolean> {
  try {
    await changeNetlink(message);
    return true;
  } catch (error) {
    if (error instanceof KernelError && ['ENOENT', 'EINVAL'].includes(error.errno)) return false;
    throw error;
  }
}
