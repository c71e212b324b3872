// Instances that move between two engines by the stock client: two of ours, and ours and a real LXD.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, open, readdir, rm } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { unmountBelow } from '../mounts.ts';
import { describeWith } from '../support.ts';
import { run, TestDaemon } from '../instances/daemon-support.ts';

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
    await poll(answers, 200, AbortSignal.timeout(60_000));
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

interface Peer extends AsyncDisposable {
  readonly root: string;
}

const PEERS: readonly {
  readonly name: string;
  readonly commands: readonly string[];
  readonly start: () => Promise<Peer>;
}[] = [
  { name: 'another lighterd', commands: [], start: () => TestDaemon.start('dir') },
  { name: 'a real LXD', commands: ['lxd'], start: () => StockLxd.start() },
];

for (const { name, commands, start } of PEERS) {
  describeWith({ root: true, commands: ['lxc', 'lxc-start', 'rsync', ...commands] }, `migration to ${name}`, () => {
    let work: string;
    let ours: TestDaemon;
    let theirs: Peer;

    const lxc = async (...args: string[]): Promise<string> => {
      const env = { PATH: process.env['PATH'] ?? '', HOME: work, LXD_CONF: join(work, 'conf'), LXD_DIR: ours.root };
      const running = run('lxc', args, { env, timeout: 60_000 });
      running.child.stdin?.end(); // lxc init reads it to its end
      return (await running).stdout;
    };
    const listed = async (remote: string): Promise<string[]> => {
      return (await lxc('list', `${remote}:`, '-f', 'csv', '-c', 'nS')).trim().split('\n').filter(Boolean);
    };

    async function serve(remote: string, { root }: Peer): Promise<void> {
      const env = { PATH: process.env['PATH'] ?? '', HOME: work, LXD_CONF: join(work, 'conf'), LXD_DIR: root };
      const port = await freePort();
      await run('lxc', ['config', 'set', 'core.https_address', `127.0.0.1:${port}`], { env });
      await run('lxc', ['config', 'set', 'core.trust_password', 'right'], { env });
      await lxc('remote', 'add', remote, `127.0.0.1:${port}`, '--accept-certificate', '--password', 'right');
    }

    beforeAll(async () => {
      work = await mkdtemp(join(tmpdir(), 'migration-'));
      ours = await TestDaemon.start('dir');
      await ours.addImage();
      theirs = await start();
      await serve('a', ours);
      await serve('b', theirs);
      if (!(await lxc('storage', 'list', 'b:', '-f', 'csv')).includes('default')) {
        await lxc('storage', 'create', 'b:default', 'dir');
        await lxc('profile', 'device', 'add', 'b:default', 'root', 'disk', 'path=/', 'pool=default');
      }
    }, 120_000);

    afterAll(async () => {
      for (const line of await listed('b')) await lxc('delete', '-f', `b:${line.split(',')[0]}`);
      await theirs[Symbol.asyncDispose]();
      await ours[Symbol.asyncDispose]();
      await rm(work, { recursive: true, force: true });
    }, 120_000);

    it.each(['pull', 'push', 'relay'])(
      'copies by %s there and back, with snapshots',
      async (mode) => {
        await lxc('init', 'a:bb', 'a:c1');
        await lxc('config', 'set', 'a:c1', 'user.tester', 'foo');
        await lxc('snapshot', 'a:c1', 'then');
        await lxc('config', 'unset', 'a:c1', 'user.tester');

        await lxc('copy', 'a:c1', 'b:c2', '--mode', mode);
        await lxc('start', 'b:c2');
        await lxc('copy', 'b:c2', 'a:c3', '--stateless', '--mode', mode);
        await lxc('copy', 'a:c3', 'b:c4', '--instance-only', '--mode', mode);
        await lxc('copy', 'b:c2/then', 'a:c5', '--mode', mode);
        await lxc('start', 'a:c3', 'a:c5');

        expect(await lxc('config', 'get', 'b:c2', 'user.tester')).toBe('\n');
        expect(await lxc('config', 'show', 'a:c3/then')).toContain('user.tester: foo');
        expect(await listed('a')).toEqual(['c1,1', 'c3,1', 'c5,0']);
        expect(await listed('b')).toEqual(['c2,1', 'c4,0']);
        await lxc('delete', '-f', 'a:c1', 'a:c3', 'a:c5', 'b:c2', 'b:c4');
      },
      120_000,
    );

    it('moves what runs, and what has the same owners inside', async () => {
      await lxc('launch', 'a:bb', 'a:m1');
      await lxc('exec', 'a:m1', '--', 'sh', '-c', 'echo hello > /root/mine; chown 7:9 /root/mine; sync');

      await lxc('move', 'a:m1', 'b:m1', '--stateless');
      await lxc('exec', 'b:m1', '--', 'sh', '-c', 'echo more >> /root/mine; sync');
      await lxc('move', 'b:m1', 'a:m2', '--stateless');

      expect(await lxc('exec', 'a:m2', '--', 'cat', '/root/mine')).toBe('hello\nmore\n');
      expect(await lxc('exec', 'a:m2', '--', 'ls', '-ln', '/root/mine')).toMatch(/ 7 +9 /u);
      expect(await listed('b')).toEqual([]);
      await lxc('delete', '-f', 'a:m2');
    }, 120_000);

    it('brings a copy up to date in both directions', async () => {
      await lxc('init', 'a:bb', 'a:r1');
      await lxc('copy', 'a:r1', 'b:r2');
      await lxc('snapshot', 'a:r1', 'one');
      await lxc('snapshot', 'b:r2', 'stray');

      await lxc('copy', 'a:r1', 'b:r2', '--refresh');
      expect(await listed('b')).toEqual(['r2,1']);
      expect(await lxc('config', 'show', 'b:r2/one')).toContain('expires_at');
      await lxc('snapshot', 'b:r2', 'two');
      await lxc('copy', 'b:r2', 'a:r1', '--refresh');

      expect(await listed('a')).toEqual(['r1,2']);
      await lxc('delete', '-f', 'a:r1', 'b:r2');
    }, 120_000);

    it('leaves nothing of one that fails', async () => {
      await lxc('init', 'a:bb', 'a:f1');
      await lxc('init', 'a:bb', 'a:f2');

      await expect(lxc('copy', 'a:f1', 'b:f3', '-p', 'nope')).rejects.toThrow();
      await lxc('copy', 'a:f1', 'b:f3');
      await expect(lxc('copy', 'b:f3', 'a:f2')).rejects.toThrow('already exists');

      expect(await listed('a')).toEqual(['f1,0', 'f2,0']);
      expect((await readdir(join(ours.root, 'containers'))).toSorted()).toEqual(['f1', 'f2']);
      expect(await readdir(join(ours.root, 'migrations'))).toEqual([]);
      await lxc('delete', '-f', 'a:f1', 'a:f2', 'b:f3');
    }, 120_000);
  });
}
