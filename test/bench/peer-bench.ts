// The engine against LXD and Incus, in one run: the same stock client, the same image, the same kind of pool.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { atATime } from '#src/lib/at-a-time.ts';
import { debianSystemdRoot } from '../integration/images.ts';
import { unmountBelow } from '../integration/mounts.ts';
import { run } from '../openstack/lab/commands.ts';
import { say } from '../openstack/lab/progress.ts';
import { installedPeers, Peer, type PeerName } from './peers.ts';
import { raisedLimits } from './kernel-limits.ts';
import { median, secondsOf } from './stats.ts';

const ROUNDS = 5;
const MANY = 64;
const AT_ONCE = 8;
/** A guest's own boot would be measured with what follows. */
const BOOT_MS = 4000;
const DEVICES = { overlay: 'overlay', dir: 'dir', btrfs: 'btrfs' } as const;

/** What is measured, in seconds; the medians of single steps, and the whole of the steps of many. */
export type Measures = Readonly<Record<string, number>>;

export interface PeerResult {
  readonly peer: PeerName;
  /** What the pool is for a user: copy-on-write or a plain file system. */
  readonly pool: 'btrfs' | 'plain';
  readonly seconds: Measures;
}

async function debianImage(scratch: string): Promise<string> {
  const root = await debianSystemdRoot();
  const staging = join(scratch, 'image');
  mkdirSync(staging);
  writeFileSync(join(staging, 'metadata.yaml'), 'architecture: x86_64\ncreation_date: 1700000000\n');
  const file = join(scratch, 'debian.tar');
  await run(['tar', '-C', staging, '-cf', file, 'metadata.yaml']);
  const rename = `--transform=s,^\\./,rootfs/,`;
  await run(['tar', '-C', root, '--numeric-owner', '--xattrs', rename, '-rf', file, '.']);
  await run(['gzip', '-1', file]);
  return `${file}.gz`;
}

class Scenario {
  readonly #peer: Peer;
  readonly #pool: string;
  readonly seconds: Record<string, number> = {};

  constructor(peer: Peer, pool: string) {
    this.#peer = peer;
    this.#pool = pool;
  }

  async run(): Promise<void> {
    await this.#one();
    await this.#many();
  }

  /** One thing after another, each by a client process of its own. */
  async #one(): Promise<void> {
    const lxc = (...args: readonly string[]): Promise<string> => this.#peer.lxc(...args);
    const times = new Map<string, number[]>();
    const time = async (what: string, ...args: readonly string[]): Promise<void> => {
      const seconds = await secondsOf(() => lxc(...args));
      times.set(what, [...(times.get(what) ?? []), seconds]);
    };
    await lxc('launch', 'bench', 'warm', '-s', this.#pool);
    await lxc('delete', '-f', 'warm');
    for (let round = 0; round < ROUNDS; round += 1) {
      await time('launch', 'launch', 'bench', 'one', '-s', this.#pool);
      await sleep(BOOT_MS);
      await time('exec of true', 'exec', 'one', '--', 'true');
      await time('forced stop', 'stop', '-f', 'one');
      await time('start', 'start', 'one');
      await sleep(BOOT_MS);
      await time('snapshot', 'snapshot', 'one', 'snap');
      await time('copy from snapshot', 'copy', 'one/snap', 'two');
      await time('delete', 'delete', 'two');
      await lxc('delete', '-f', 'one');
    }
    for (const [what, values] of times) this.seconds[what] = median(values);
  }

  /** 64 instances by 64 client processes, 8 at a time. */
  async #many(): Promise<void> {
    const names = Array.from({ length: MANY }, (_, index) => `m${index}`);
    const time = async (what: string, work: (name: string) => Promise<unknown>): Promise<void> => {
      const all = (): Promise<void> => atATime(AT_ONCE, names, async (name) => void (await work(name)));
      const title = `${MANY} by ${AT_ONCE}: ${what}`;
      const before = this.#peer.processorSeconds();
      this.seconds[title] = await secondsOf(all);
      this.seconds[`${title}, processor time of the engine`] = this.#peer.processorSeconds() - before;
    };
    // the floor of what follows, with any engine
    await time('a question', () => this.#peer.lxc('query', '/1.0'));
    await time('init', (name) => this.#peer.lxc('init', 'bench', name, '-s', this.#pool));
    await time('start', (name) => this.#peer.lxc('start', name));
    const list = await secondsOf(() => this.#peer.lxc('list'));
    this.seconds[`list of ${MANY} running`] = list;
    await time('forced stop', (name) => this.#peer.lxc('stop', '-f', name));
    await time('delete', (name) => this.#peer.lxc('delete', name));
  }
}

async function measure(name: PeerName, scratch: string, image: string): Promise<readonly PeerResult[]> {
  const plain = name === 'lighterd' ? DEVICES.overlay : DEVICES.dir;
  const results: PeerResult[] = [];
  await using peer = await Peer.start(name, join(scratch, name));
  await using _guests = { [Symbol.asyncDispose]: () => peer.deleteInstances() };
  await peer.lxc('storage', 'create', 'cow', 'btrfs', 'size=20GiB');
  // ours has its default pool from the start
  await peer.lxc('storage', 'create', 'plain', plain);
  await peer.lxc('image', 'import', image, '--alias', 'bench');
  for (const [pool, kind] of [
    ['cow', 'btrfs'],
    ['plain', 'plain'],
  ] as const) {
    say(`${name} on ${kind} …`);
    const scenario = new Scenario(peer, pool);
    await scenario.run();
    results.push({ peer: name, pool: kind, seconds: scenario.seconds });
  }
  await peer.lxc('image', 'delete', 'bench');
  await peer.lxc('storage', 'delete', 'cow');
  await peer.lxc('storage', 'delete', 'plain');
  return results;
}

/** @param chosen some of those that are installed; none: all. `lighterd` always takes part. */
export async function benchPeers(chosen: readonly string[] = []): Promise<readonly PeerResult[]> {
  const scratch = mkdtempSync(join(tmpdir(), 'lighter-peers-'));
  await run(['chmod', '711', scratch]);
  const results: PeerResult[] = [];
  using _limits = raisedLimits();
  try {
    const image = await debianImage(scratch);
    for (const name of await installedPeers()) {
      if (name !== 'lighterd' && chosen.length > 0 && !chosen.includes(name)) continue;
      results.push(...(await measure(name, scratch, image)));
    }
  } finally {
    await unmountBelow(scratch);
    rmSync(scratch, { recursive: true, force: true });
  }
  return results;
}

/** A line a measure, a column a peer, and how many times faster ours is than the fastest of the others. */
export function printPeers(results: readonly PeerResult[]): void {
  for (const pool of ['btrfs', 'plain'] as const) {
    const columns = results.filter((result) => result.pool === pool);
    const [ours, ...others] = columns;
    if (ours === undefined) continue;
    console.log(`\n| on ${pool} | ${columns.map(({ peer }) => peer).join(' | ')} | ours is faster by |`);
    console.log(`|${' --- |'.repeat(columns.length + 2)}`);
    for (const [what, mine] of Object.entries(ours.seconds)) {
      const best = Math.min(...others.map(({ seconds }) => seconds[what] ?? Number.POSITIVE_INFINITY));
      const cells = columns.map(({ seconds }) => `${(seconds[what] ?? Number.NaN).toFixed(3)} s`);
      console.log(
        `| ${what} | ${cells.join(' | ')} | ${Number.isFinite(best) ? `${(best / mine).toFixed(1)} ×` : ''} |`,
      );
    }
  }
}
