// How fast a guest may receive and send, held on the host's end of its pair, where the guest has no say: what it receives waits in a
// queue (htb), what it sends is dropped when it is too much (a policer of nftables, which needs no act_police of the kernel).
import { CommandError } from '#src/host/command-error.ts';
import type { Host } from '#src/host/host.ts';
import { limited } from '#src/lib/wait.ts';
import type { FlowRate, VifRates } from '../driver.ts';

const TABLE = 'netdev nova';
/** Tells our queue from one of Neutron's agents, whose handles the kernel chooses. */
const QUEUE = '4c58:';
/** What the second rate of an htb class lets through at once: a packet, or what a coarse timer owes. */
const MIN_BURST_BYTES = 3200;
const READ_LIMIT_MS = 30_000;

interface End {
  readonly name: string;
  readonly isNew: boolean;
}

interface Queue {
  readonly handle: string;
  readonly dev: string;
}

export class EndRates {
  readonly #host: Host;
  /** Ends that may have limits of ours. */
  #limited: Promise<Set<string>> | undefined;

  constructor(host: Host) {
    this.#host = host;
  }

  /** `isNew`: the end has just been made, so that it has no queue. */
  async set({ name, isNew }: End, { inbound, outbound }: VifRates, signal: AbortSignal): Promise<void> {
    const known = await this.#known();
    const isFree = inbound === null && outbound === null;
    if (isFree && !known.has(name)) return;
    known.add(name);
    await this.#setQueue({ name, isNew }, inbound, signal);
    await this.#setPolicer(name, outbound, signal);
    if (isFree) known.delete(name);
  }

  /** The queue goes with the end; a policer would wait for the next one of that name. Absent is success. */
  async remove(name: string, signal: AbortSignal): Promise<void> {
    const known = await this.#known();
    if (!known.has(name)) return;
    await this.#setPolicer(name, null, signal);
    known.delete(name);
  }

  async #setQueue({ name, isNew }: End, rate: FlowRate | null, signal: AbortSignal): Promise<void> {
    const isThere = !isNew && (await this.#queuesOf(['dev', name, 'root'], signal)).length > 0;
    if (rate === null && !isThere) return;
    const lines = rate === null ? [`qdisc delete dev ${name} root`] : queueLines(name, rate, isThere);
    await this.#host.run(['tc', '-batch', '-'], { input: `${lines.join('\n')}\n`, signal });
  }

  async #setPolicer(name: string, rate: FlowRate | null, signal: AbortSignal): Promise<void> {
    await this.#host.run(['nft', '-f', '-'], { input: `${policerLines(name, rate).join('\n')}\n`, signal });
  }

  /** What an earlier process left, read once: only this one changes it. */
  async #known(): Promise<Set<string>> {
    this.#limited ??= this.#read(limited(READ_LIMIT_MS));
    try {
      return await this.#limited;
    } catch (error) {
      this.#limited = undefined;
      throw error;
    }
  }

  async #read(signal: AbortSignal): Promise<Set<string>> {
    // no such table, or none of the tools: whoever wants a limit is told then
    const orNone = (error: unknown): readonly string[] => {
      if (error instanceof CommandError && !signal.aborted) return [];
      throw error;
    };
    const [policed, queued] = await Promise.all([
      this.#policersOfAll(signal).catch(orNone),
      this.#queuesOf([], signal).catch(orNone),
    ]);
    return new Set([...policed, ...queued]);
  }

  async #policersOfAll(signal: AbortSignal): Promise<readonly string[]> {
    const list = ['nft', '-json', 'list', 'table', ...TABLE.split(' ')] as const;
    const { stdout } = await this.#host.run(list, { signal });
    const { nftables = [] } = (told(stdout) ?? {}) as { nftables?: readonly { chain?: { name: string } }[] };
    return nftables.flatMap(({ chain }) => (chain ? [chain.name] : []));
  }

  /** The interfaces among them that have a queue of ours. */
  async #queuesOf(which: readonly string[], signal: AbortSignal): Promise<readonly string[]> {
    const { stdout } = await this.#host.run(['tc', '-json', 'qdisc', 'show', ...which], { signal });
    const queues = (told(stdout) ?? []) as readonly Partial<Queue>[];
    return queues.flatMap(({ handle, dev = '' }) => (handle === QUEUE ? [dev] : []));
  }
}

/** Tools that have nothing to tell may be silent. */
function told(stdout: string): unknown {
  return stdout.trim() === '' ? undefined : JSON.parse(stdout);
}

function queueLines(name: string, rate: FlowRate, isThere: boolean): readonly string[] {
  // a queue that is there keeps what waits in it
  const queue = isThere ? [] : [`qdisc replace dev ${name} root handle ${QUEUE} htb default 1`];
  return [...queue, `class replace dev ${name} parent ${QUEUE} classid ${QUEUE}1 htb ${htbOf(rate)}`];
}

/** Without a peak a burst goes as fast as the interface does. */
function htbOf({ averageBytes, peakBytes, burstBytes }: FlowRate): string {
  const size = burstBytes === null ? null : Math.max(MIN_BURST_BYTES, burstBytes);
  const burst = size === null ? '' : ` burst ${size}`;
  if (peakBytes !== null) return `rate ${8 * averageBytes}bit ceil ${8 * peakBytes}bit${burst}`;
  return `rate ${8 * averageBytes}bit${burst}${size === null ? '' : ` cburst ${size}`}`;
}

/** One transaction. nft of Debian 12 has no "destroy": what is deleted is made first if need be. */
function policerLines(name: string, rate: FlowRate | null): readonly string[] {
  const chain = `${TABLE} ${name}`;
  const removal = [`add table ${TABLE}`, `add chain ${chain}`, `flush chain ${chain}`, `delete chain ${chain}`];
  if (rate === null) return removal;
  const hook = `{ type filter hook ingress device "${name}" priority -200; policy accept; }`;
  return [
    ...removal,
    `add chain ${chain} ${hook}`,
    ...policersOf(rate).map((policer) => `add rule ${chain} ${policer}`),
  ];
}

/** The kernel adds a second's worth to every burst. */
function policersOf({ averageBytes, peakBytes, burstBytes }: FlowRate): readonly string[] {
  const burst = Math.max(0, (burstBytes ?? 0) - averageBytes);
  const average = `limit rate over ${averageBytes} bytes/second burst ${burst} bytes drop`;
  return peakBytes === null ? [average] : [`limit rate over ${peakBytes} bytes/second burst 0 bytes drop`, average];
}
