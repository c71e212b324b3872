// A daemon that can be killed at any step, with a pool of one driver, a container that runs, and a look at all there is.
import { readFile, readdir, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { tmpdir } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeBusyboxImage } from '../../images.ts';
import { run, TestDaemon } from '../../instances/daemon-support.ts';

export type FaultDriver = 'overlay' | 'dir' | 'btrfs' | 'zfs';
/** Something to compare; what differs from run to run is not in it. */
export type View = readonly string[];

/** Of this engine alone: compiled code, kept for all daemons of a run. */
const CACHE = join(tmpdir(), `lighter-faults-cache-${process.pid}`);
const IMAGE = join(tmpdir(), `lighter-faults-${process.pid}.tar.gz`);
const SKIPPED = new Set([
  'blocks',
  'cache',
  'database',
  'daemon.log',
  'unix.socket',
  'storage-pools',
  'logs',
  'server.crt',
  'server.key',
]);
/** An image that is known may be unpacked, or be still there for those who use it: what a line names first, not where a clone is from. */
const CACHED =
  /(?:storage-pools\/\w+|lighter-f[\d\w-]+)\/(?:images|deleted)\/(?:images\/)?[0-9a-f]{64}|\/images\/[0-9a-f]{64}\.metadata/u;
/** Written some time after a change, by design. */
const LATER = /(?:^|\/)(?:backup\.yaml|recorded)$|storage-pools\/\w+\/containers\/\w+\/(?:metadata\.yaml|templates)$/u;

export class FaultMachine implements AsyncDisposable {
  readonly daemon: TestDaemon;
  readonly driver: FaultDriver;
  readonly zpool: string;
  #pid = 0;

  private constructor(daemon: TestDaemon, driver: FaultDriver) {
    this.daemon = daemon;
    this.driver = driver;
    this.zpool = `lighter-f${process.pid}-${Date.now() % 1_000_000}`;
  }

  static async make(driver: FaultDriver): Promise<FaultMachine> {
    await TestDaemon.warm(CACHE);
    const machine = new FaultMachine(await TestDaemon.start('none', { NODE_COMPILE_CACHE: CACHE }), driver);
    try {
      await machine.#fill();
    } catch (error) {
      // a container of its would run on
      await machine[Symbol.asyncDispose]();
      throw error;
    }
    return machine;
  }

  static async end(): Promise<void> {
    for (const path of [CACHE, IMAGE]) await rm(path, { recursive: true, force: true });
  }

  async #fill(): Promise<void> {
    const { daemon } = this;
    await this.operate('POST', '/1.0/storage-pools', { name: 'p', ...this.newPool('p') });
    const root = { type: 'disk', path: '/', pool: 'p' };
    await daemon.call('PUT', '/1.0/profiles/default', { description: '', config: {}, devices: { root } });
    await makeBusyboxImage(IMAGE);
    await this.upload();
    await this.operate('POST', '/1.0/instances', { name: 'run', source: { type: 'image', alias: 'bb' }, start: true });
    await daemon.ready('run');
    this.#pid = (await daemon.state('run')).pid;
  }

  /** Body of a request for a pool of this driver, less its name. */
  newPool(name: string): { driver: string; config: Record<string, string> } {
    const { driver } = this;
    const sized = driver === 'btrfs' || driver === 'zfs';
    return {
      driver,
      config: {
        ...(sized && { size: name === 'p' ? '1GiB' : '256MiB' }),
        ...(driver === 'zfs' && { 'zfs.pool_name': `${this.zpool}${name}` }),
      },
    };
  }

  async upload(): Promise<void> {
    const headers = { 'content-type': 'application/octet-stream' };
    const started = await this.daemon.call('POST', '/1.0/images', await readFile(IMAGE), headers);
    const { metadata } = await this.daemon.call('GET', `${started.operation}/wait?timeout=60`);
    if (metadata.status_code !== 200) throw new Error(metadata.err);
    const target = metadata.metadata.fingerprint as string;
    await this.daemon.call('POST', '/1.0/images/aliases', { name: 'bb', target });
  }

  /** Of requests that are operations, and of those that are not. */
  async operate(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<any> {
    const started = await this.daemon.call(method, path, body, headers);
    if (started.type === 'error' || started.status >= 400) throw new Error(`${method} ${path}: ${started.error}`);
    if (started.type !== 'async') return started.metadata;
    const { metadata } = await this.daemon.call('GET', `${started.operation}/wait?timeout=60`);
    if (metadata.status_code !== 200) throw new Error(`${method} ${path}: ${metadata.err}`);
    return metadata;
  }

  download(path: string): Promise<Buffer> {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    const call = request({ socketPath: this.daemon.socketPath, path }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => resolve(Buffer.concat(chunks)));
    });
    call.on('error', reject);
    call.end();
    return promise;
  }

  /** The next step with this number is not reached. */
  async restart(step: number): Promise<void> {
    await this.daemon.kill();
    const fault = step === 0 ? 'count' : String(step);
    await this.daemon.boot('none', { NODE_COMPILE_CACHE: CACHE, LIGHTER_FAULT: fault });
  }

  /** Names of the steps of `work`. */
  async steps(work: () => Promise<unknown>): Promise<readonly string[]> {
    const before = await this.daemon.logSize();
    await this.#begin();
    await work();
    const text = await this.daemon.log(before);
    return [...text.matchAll(/^fault step \d+: (.*)$/gmu)].map(([, name]) => name ?? '');
  }

  /** Whether the daemon died of it. */
  async dies(work: () => Promise<unknown>): Promise<boolean> {
    await this.#begin();
    try {
      await work();
    } catch (error) {
      for (let tries = 0; tries < 500 && !this.daemon.isGone(); tries++) await sleep(20);
      if (!this.daemon.isGone()) throw error;
    }
    return this.daemon.isGone();
  }

  async #begin(): Promise<void> {
    const before = await this.daemon.logSize();
    this.daemon.signal('SIGUSR2');
    for (let tries = 0; tries < 1000; tries++) {
      if ((await this.daemon.log(before)).includes('fault steps begin')) return;
      await sleep(5);
    }
    throw new Error('the daemon does not count');
  }

  /** The container that ran all the time still does. */
  async stillRuns(): Promise<boolean> {
    const state = await this.daemon.state('run');
    return state?.status === 'Running' && state.pid === this.#pid;
  }

  async view(): Promise<View> {
    const parts = await Promise.all([this.#records(), this.#tree(), this.#pool(), this.#mounts(), this.#loops()]);
    const lines = parts.flat().filter((line) => !CACHED.test(line.split('\t')[0] ?? ''));
    return lines.map((line) => this.#steady(line)).sort();
  }

  #steady(line: string): string {
    return line
      .replaceAll(this.daemon.root, 'ROOT')
      .replaceAll(this.zpool, 'ZPOOL')
      .replace(/\tZPOOL(\w)\/deleted\/images\//u, '\tZPOOL$1/images/')
      .replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/gu, 'UUID')
      .replaceAll(/[0-9a-f]{64}/gu, 'FINGERPRINT');
  }

  async #records(): Promise<string[]> {
    const get = async (path: string): Promise<any> => (await this.daemon.call('GET', path)).metadata;
    const lines: string[] = [];
    for (const { name, driver, config, status } of await get('/1.0/storage-pools?recursion=1')) {
      lines.push(`pool ${name} ${driver} ${status} ${JSON.stringify(config)}`);
      for (const volume of await get(`/1.0/storage-pools/${name}/volumes/custom?recursion=1`)) {
        lines.push(`volume ${name}/${volume.name} ${JSON.stringify(volume.config)} ${JSON.stringify(volume.used_by)}`);
        const url = `/1.0/storage-pools/${name}/volumes/custom/${volume.name}`;
        for (const snapshot of await get(`${url}/snapshots`)) lines.push(`volume snapshot ${snapshot}`);
        for (const backup of await get(`${url}/backups`)) lines.push(`volume backup ${backup}`);
      }
    }
    for (const instance of await get('/1.0/instances?recursion=2')) {
      const { name, status, config, expanded_devices: devices, profiles, snapshots, backups } = instance;
      lines.push(`instance ${name} ${status} ${JSON.stringify([own(config), devices, profiles])}`);
      for (const snapshot of snapshots ?? [])
        lines.push(`snapshot ${name}/${snapshot.name} ${JSON.stringify(own(snapshot.config))}`);
      for (const backup of backups ?? []) lines.push(`backup ${name}/${backup.name}`);
    }
    for (const { fingerprint, aliases } of await get('/1.0/images?recursion=1')) {
      lines.push(`image ${fingerprint} ${JSON.stringify(aliases)}`);
    }
    return lines;
  }

  async #tree(): Promise<string[]> {
    const { root } = this.daemon;
    const names = (await readdir(root)).filter((name) => !SKIPPED.has(name) && !LATER.test(name));
    const found = await Promise.all(names.map((name) => listed(join(root, name), 3)));
    const pools = await readdir(join(root, 'storage-pools'));
    return [...found.flat(), ...pools.map((name) => join(root, 'storage-pools', name))];
  }

  async #pool(): Promise<string[]> {
    if (this.driver === 'zfs') {
      const names = ['list', '-H', '-t', 'all', '-o', 'name,origin,quota', '-r'];
      const { stdout } = await run('zpool', ['list', '-H', '-o', 'name']);
      const ours = stdout.split('\n').filter((name) => name.startsWith(this.zpool));
      const lists = await Promise.all(ours.map((name) => run('zfs', [...names, name])));
      return [...ours, ...lists.flatMap((list) => list.stdout.split('\n')).filter((line) => line !== '')];
    }
    const pools = await readdir(join(this.daemon.root, 'storage-pools'));
    const lists = await Promise.all(pools.map((name) => listed(join(this.daemon.root, 'storage-pools', name), 3)));
    return lists.flat();
  }

  async #mounts(): Promise<string[]> {
    const mounts = await this.daemon.mounts();
    // zfs keeps a new root mounted until the daemon starts again.
    return mounts
      .filter((path) => this.driver !== 'zfs' || !/\/containers\/c\d$/u.test(path))
      .map((path) => `mount ${path}`);
  }

  async #loops(): Promise<string[]> {
    const { stdout } = await run('losetup', ['-l', '-n', '-O', 'BACK-FILE']);
    return stdout
      .split('\n')
      .filter((line) => line.includes(this.daemon.root))
      .map((line) => `loop ${line.trim()}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const pools = join(this.daemon.root, 'storage-pools');
    try {
      await this.daemon.kill();
      await this.daemon.boot('none', { NODE_COMPILE_CACHE: CACHE });
      const names = (await this.daemon.call('GET', '/1.0/instances')).metadata as string[];
      for (const url of names)
        await this.operate('PUT', `${url}/state`, { action: 'stop', force: true }).catch(() => undefined);
    } finally {
      await this.daemon.kill('SIGTERM');
      for (const path of await this.daemon.mounts()) await run('umount', ['-l', path]);
      if (this.driver === 'zfs') await this.#destroyZpools();
      await run('sh', ['-c', `chattr -R -f -i -a ${pools} || true`]);
      await rm(this.daemon.root, { recursive: true, force: true });
    }
  }

  async #destroyZpools(): Promise<void> {
    const { stdout } = await run('zpool', ['list', '-H', '-o', 'name']);
    for (const name of stdout.split('\n')) {
      if (name.startsWith(this.zpool)) await run('zpool', ['destroy', '-f', name]);
    }
  }
}

function own(config: Record<string, string>): Record<string, string> {
  const entries = Object.entries(config).filter(([key]) => !/^(?:volatile|image)\./u.test(key));
  return Object.fromEntries(entries.toSorted(([left], [right]) => left.localeCompare(right)));
}

/** Paths of what is at most `depth` deep in a directory, but not in roots. */
async function listed(path: string, depth: number): Promise<string[]> {
  const entries = await readdir(path, { withFileTypes: true }).catch(() => []);
  const lists = entries.map(async (entry) => {
    const child = join(path, entry.name);
    if (LATER.test(child)) return [];
    const deeper =
      entry.isDirectory() && depth > 1 && !['rootfs', 'upper', 'work-dir', 'templates'].includes(entry.name);
    return [child, ...(deeper ? await listed(child, depth - 1) : [])];
  });
  return (await Promise.all(lists)).flat();
}
