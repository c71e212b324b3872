// Two engines for tests of what goes between them: ours, and another of ours or a real LXD.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, open, rm } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { poll } from '#src/lib/wait.ts';
import { timeFactor } from '#test/time-factor.ts';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { unmountBelow } from '../mounts.ts';
import { hasKernelZfs } from '../support.ts';

const LIGHTER = join(import.meta.dirname, '../../../bin/lighter.ts');

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, 'close');
  return port;
}

/** A real LXD as a plain process with its own directory. */
class StockLxd implements AsyncDisposable {
  readonly root: string;
  readonly #process: ChildProcess;

  private constructor(root: string, process: ChildProcess) {
    this.root = root;
    this.#process = process;
  }

  static async start(): Promise<StockLxd> {
    const root = await mkdtemp(join(tmpdir(), 'lxd-'));
    await chmod(root, 0o711);
    const log = await open(join(root, 'daemon.log'), 'a');
    const env = { PATH: process.env['PATH'] ?? '', LXD_DIR: root };
    const lxd = new StockLxd(root, spawn('lxd', [], { stdio: ['ignore', log.fd, log.fd], env }));
    await log.close();
    const answers = () =>
      run('lxc', ['query', '/1.0'], { env: { ...env, LXD_CONF: root } }).then(
        () => true,
        () => undefined,
      );
    await poll(answers, 200, AbortSignal.timeout(60_000 * timeFactor()));
    return lxd;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = once(this.#process, 'exit');
    this.#process.kill('SIGPWR');
    await Promise.race([gone, new Promise((resolve) => setTimeout(resolve, 20_000).unref())]);
    this.#process.kill('SIGKILL');
    await unmountBelow(this.root);
    await rm(this.root, { recursive: true, force: true });
  }
}

export interface Peer extends AsyncDisposable {
  readonly root: string;
}

export const PEERS: readonly {
  readonly name: string;
  readonly commands: readonly string[];
  readonly start: () => Promise<Peer>;
  /** Pools whose volumes go as streams. */
  readonly formats: readonly ('btrfs' | 'zfs')[];
  /** Single snapshots of custom volumes are sent to other servers. */
  readonly hasSnapshotCopies: boolean;
  /** A file that was changed twice in one second, to the same size, arrives as it was last; LXD compares whole seconds. */
  readonly seesFastChanges: boolean;
}[] = [
  {
    name: 'another lighterd',
    commands: [],
    start: () => TestDaemon.start('dir'),
    formats: ['btrfs', 'zfs'],
    hasSnapshotCopies: true,
    seesFastChanges: true,
  },
  {
    name: 'a real LXD',
    commands: ['lxd'],
    start: () => StockLxd.start(),
    formats: hasKernelZfs ? ['btrfs', 'zfs'] : ['btrfs'],
    hasSnapshotCopies: false,
    seesFastChanges: false,
  },
];

/** Both with their pools `default`, as remotes `a` (ours) and `b` of one stock client. */
export class Pair implements AsyncDisposable {
  readonly work: string;
  readonly ours: TestDaemon;
  readonly theirs: Peer;

  private constructor(work: string, ours: TestDaemon, theirs: Peer) {
    this.work = work;
    this.ours = ours;
    this.theirs = theirs;
  }

  static async start(startPeer: () => Promise<Peer>): Promise<Pair> {
    const work = await mkdtemp(join(tmpdir(), 'migration-'));
    const ours = await TestDaemon.start('dir');
    await ours.addImage();
    const pair = new Pair(work, ours, await startPeer());
    await pair.#serve('a', pair.ours);
    await pair.#serve('b', pair.theirs);
    if (!(await pair.lxc('storage', 'list', 'b:', '-f', 'csv')).includes('default')) {
      await pair.lxc('storage', 'create', 'b:default', 'dir');
      await pair.lxc('profile', 'device', 'add', 'b:default', 'root', 'disk', 'path=/', 'pool=default');
    }
    return pair;
  }

  get #env(): NodeJS.ProcessEnv {
    return {
      PATH: process.env['PATH'] ?? '',
      HOME: this.work,
      LXD_CONF: join(this.work, 'conf'),
      LIGHTER_CONF: join(this.work, 'conf'),
    };
  }

  async lxc(...args: string[]): Promise<string> {
    return this.#run('lxc', args, this.ours.root);
  }

  async lighter(...args: string[]): Promise<string> {
    return this.#run(process.execPath, [LIGHTER, ...args], this.ours.root);
  }

  async #run(program: string, args: readonly string[], root: string): Promise<string> {
    const running = run(program, args, { env: { ...this.#env, LXD_DIR: root }, timeout: 60_000 * timeFactor() });
    running.child.stdin?.end(); // lxc init reads it to its end
    return (await running).stdout;
  }

  /** Names of instances, each with the number of its snapshots. */
  async listed(remote: string): Promise<string[]> {
    return (await this.lxc('list', `${remote}:`, '-f', 'csv', '-c', 'nS')).trim().split('\n').filter(Boolean);
  }

  async #serve(remote: string, { root }: Peer): Promise<void> {
    const port = await freePort();
    await this.#run('lxc', ['config', 'set', 'core.https_address', `127.0.0.1:${port}`], root);
    await this.#run('lxc', ['config', 'set', 'core.trust_password', 'right'], root);
    await this.lxc('remote', 'add', remote, `127.0.0.1:${port}`, '--accept-certificate', '--password', 'right');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const line of await this.listed('b')) await this.lxc('delete', '-f', `b:${line.split(',')[0]}`);
    await this.theirs[Symbol.asyncDispose]();
    await this.ours[Symbol.asyncDispose]();
    await rm(this.work, { recursive: true, force: true });
  }
}
