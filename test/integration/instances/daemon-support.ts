// A daemon of its own for a test: its process, its API, and the end of everything that it left on the machine.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { chmod, mkdtemp, open, readFile, rm, stat } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { WebSocket } from 'ws';
import { poll } from '#src/lib/wait.ts';
import { timeFactor } from '#test/time-factor.ts';
import { makeBusyboxImage } from '../images.ts';

export const run = promisify(execFile);
/** Of the hostile sets, which are run by hand on other pools than the usual. */
export const HOSTILE_DRIVER = process.env['HOSTILE_DRIVER'] ?? 'overlay';
/** LIGHTERD_ENTRY: the daemon in one file, for runs that start it thousands of times. */
const ENTRY = process.env['LIGHTERD_ENTRY'] ?? join(import.meta.dirname, '../../../bin/lighterd.ts');
/** LIGHTERD_COMPILE_CACHE: filled by warm(), for machines on which a daemon's start takes minutes without. */
const { LIGHTERD_COMPILE_CACHE: CACHE } = process.env;
/** Who asks more often on a slow machine takes the time of what it waits for. */
const STEP_MS = 10 * timeFactor();

export interface Answer {
  readonly status: number;
  readonly type: string;
  readonly error: string;
  readonly operation: string;
  // oxlint-disable-next-line typescript/no-explicit-any -- tests look into it as clients do
  readonly metadata: any;
  readonly text: string;
  readonly headers: Readonly<Record<string, unknown>>;
}

export interface LifecycleSeen {
  readonly action: string;
  readonly source: string;
  readonly at: number;
}

export class TestDaemon implements AsyncDisposable {
  readonly root: string;
  readonly events: LifecycleSeen[] = [];
  readonly #driver: string;
  #process: ChildProcess | undefined;
  #socket: WebSocket | undefined;

  private constructor(root: string, driver: string) {
    this.root = root;
    this.#driver = driver;
  }

  static async start(driver = 'overlay', env: Readonly<Record<string, string>> = {}): Promise<TestDaemon> {
    const root = await mkdtemp(join(tmpdir(), 'lighter-'));
    await chmod(root, 0o711);
    const daemon = new TestDaemon(root, driver);
    await daemon.boot(driver, env);
    return daemon;
  }

  get pid(): number {
    return this.#process?.pid ?? Number.NaN;
  }

  get socketPath(): string {
    return join(this.root, 'unix.socket');
  }

  async boot(driver = 'overlay', env: Readonly<Record<string, string>> = {}): Promise<void> {
    const log = await open(join(this.root, 'daemon.log'), 'a');
    // No NODE_OPTIONS of the test runner: it is another program.
    this.#process = spawn(process.execPath, [ENTRY, '--debug', '--storage', driver], {
      stdio: ['ignore', log.fd, log.fd],
      env: {
        PATH: process.env['PATH'] ?? '',
        LIGHTER_DIR: this.root,
        ...(CACHE !== undefined && { NODE_COMPILE_CACHE: CACHE }),
        ...env,
      },
    });
    await log.close();
    const answers = async () => {
      if (this.#process?.exitCode !== null) throw new Error(`the daemon ended: ${await this.log()}`);
      return this.call('GET', '/1.0').then(
        ({ status }) => (status === 200 ? true : undefined),
        () => undefined,
      );
    };
    await poll(answers, STEP_MS, AbortSignal.timeout(30_000 * timeFactor()));
    this.#socket = new WebSocket(`ws+unix://${this.socketPath}:/1.0/events?type=lifecycle`);
    this.#socket.on('message', (data: Buffer) => {
      const { metadata } = JSON.parse(data.toString()) as { metadata: { action: string; source: string } };
      this.events.push({ ...metadata, at: Date.now() });
    });
    await new Promise((resolve, reject) => {
      this.#socket?.once('open', resolve);
      this.#socket?.once('error', reject);
    });
  }

  /** From a byte of it on. */
  async log(from = 0): Promise<string> {
    await using file = await open(join(this.root, 'daemon.log'));
    const { size } = await file.stat();
    const { buffer, bytesRead } = await file.read(Buffer.alloc(Math.max(0, size - from)), { position: from });
    return buffer.subarray(0, bytesRead).toString();
  }

  async logSize(): Promise<number> {
    return (await stat(join(this.root, 'daemon.log'))).size;
  }

  signal(signal: NodeJS.Signals): void {
    this.#process?.kill(signal);
  }

  isGone(): boolean {
    const child = this.#process;
    return child === undefined || child.exitCode !== null || child.signalCode !== null;
  }

  /** Fills a compile cache, which a daemon that is killed never does. */
  static async warm(cache: string): Promise<void> {
    await run(process.execPath, [ENTRY, '--warm'], { env: { NODE_COMPILE_CACHE: cache } });
  }

  /** As a crash does it: at once. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#process;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    this.#socket?.terminate();
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await gone;
  }

  async call(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const payload = body === undefined || Buffer.isBuffer(body) ? body : JSON.stringify(body);
    const call = request({ socketPath: this.socketPath, path, method, headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        const json = text.startsWith('{') ? (JSON.parse(text) as object) : {};
        const base = { type: '', error: '', operation: '', metadata: null };
        resolve({ ...base, ...json, status: response.statusCode ?? 0, text, headers: response.headers });
      });
    });
    call.on('error', reject);
    call.end(payload);
    return promise;
  }

  /** Starts the operation and waits for its end; rejects with its `err` or the error of the request. */
  async operate(method: string, path: string, body?: unknown): Promise<Answer> {
    const started = await this.call(method, path, body);
    if (started.type !== 'async') throw new Error(started.error);
    const ended = await this.call('GET', `${started.operation}/wait?timeout=${60 * timeFactor()}`);
    if (ended.metadata.status_code !== 200) throw new Error(ended.metadata.err);
    return ended;
  }

  /** Uploads the busybox image under the alias `bb`. */
  async addImage(): Promise<string> {
    const file = join(this.root, 'busybox.tar.gz');
    await makeBusyboxImage(file);
    const upload = await this.call('POST', '/1.0/images', await readFile(file), {
      'content-type': 'application/octet-stream',
    });
    const ended = await this.call('GET', `${upload.operation}/wait?timeout=${60 * timeFactor()}`);
    if (ended.metadata.status_code !== 200) throw new Error(ended.metadata.err);
    const target = ended.metadata.metadata.fingerprint as string;
    await this.call('POST', '/1.0/images/aliases', { name: 'bb', target });
    return target;
  }

  async launch(name: string, changes: object = {}): Promise<void> {
    const body = { name, source: { type: 'image', alias: 'bb' }, start: true, ...changes };
    await this.operate('POST', '/1.0/instances', body);
  }

  async status(name: string): Promise<string> {
    return (await this.call('GET', `/1.0/instances/${name}`)).metadata.status;
  }

  // oxlint-disable-next-line typescript/no-explicit-any -- as above
  async state(name: string): Promise<any> {
    return (await this.call('GET', `/1.0/instances/${name}/state`)).metadata;
  }

  async consoleLog(name: string): Promise<string> {
    return (await this.call('GET', `/1.0/instances/${name}/console`)).text;
  }

  /** Resolves when init has said that it is up, at least `times` times. */
  async ready(name: string, times = 1): Promise<void> {
    const up = async () => ((await this.consoleLog(name)).split('up as').length > times ? true : undefined);
    await poll(up, 2 * STEP_MS, AbortSignal.timeout(15_000 * timeFactor()));
  }

  /** The next event with this action, at or after `since` in the list. */
  async seen(action: string, since = 0): Promise<LifecycleSeen> {
    const find = () => this.events.slice(since).find((event) => event.action === action);
    return poll(find, STEP_MS, AbortSignal.timeout(15_000 * timeFactor()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      if (this.#process?.exitCode !== null || this.#process.signalCode !== null) await this.boot();
      const { metadata } = await this.call('GET', '/1.0/instances?recursion=1');
      for (const { name, status } of metadata as { name: string; status: string }[]) {
        if (status !== 'Stopped') await this.#stop(name);
        await this.call('GET', `/1.0/instances/${name}`).then(async ({ status: found }) => {
          if (found === 200) await this.operate('DELETE', `/1.0/instances/${name}`).catch(unlessPoolIsGone);
        });
      }
    } finally {
      await this.kill('SIGTERM');
      for (const mount of await this.mounts()) await run('umount', ['-l', mount]);
      if (this.#driver === 'zfs') await run('zpool', ['destroy', '-f', 'default']);
      await rm(this.root, { recursive: true, force: true });
    }
  }

  /** Bytes of memory that it holds. */
  async residentBytes(): Promise<number> {
    const status = await readFile(`/proc/${this.#process?.pid}/status`, 'utf8');
    return Number(/^VmRSS:\s*(\d+)/m.exec(status)?.[1]) * 1024;
  }

  async #stop(name: string): Promise<void> {
    await this.operate('PUT', `/1.0/instances/${name}/state`, { action: 'stop', force: true });
  }

  /** Commands of the processes that it has started and that still run, in order. */
  async children(): Promise<string> {
    const { pid } = this.#process ?? {};
    if (pid === undefined) return '';
    const { stdout } = await run('ps', ['-o', 'args=', '--ppid', String(pid)]).catch(() => ({ stdout: '' }));
    return stdout.split('\n').sort().join('\n');
  }

  /** Mounts below the daemon's directory, deepest first. */
  async mounts(): Promise<string[]> {
    const table = await readFile('/proc/self/mounts', 'utf8');
    const points = table.split('\n').map((line) => line.split(' ')[1] ?? '');
    return points
      .filter((point) => point.startsWith(`${this.root}/`))
      .sort((left, right) => right.length - left.length);
  }
}

/** A test that has taken its pool away already has its instances away. */
function unlessPoolIsGone(error: unknown): void {
  if (!String(error).includes('is unavailable on this server')) throw error;
}
