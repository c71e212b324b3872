// A daemon, a tree beside it that nothing may touch, and images that want to: what becomes of each, and of everything around.
import { mkdir, mkdtemp, readdir, readFile, rm, statfs, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { expect } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { type Member, tar } from '../host/tar-writer.ts';
import { makeBusyboxRoot } from '../images.ts';
import { type Answer, HOSTILE_DRIVER, run, TestDaemon } from '../instances/daemon-support.ts';

const ARCHITECTURE = process.arch === 'arm64' ? 'aarch64' : 'x86_64';
export const METADATA = `architecture: ${ARCHITECTURE}\ncreation_date: 1700000000\n`;
/** What no error of an operation may look like: the machinery's own words, or nothing at all. */
const UNCLEAR = /^$|TypeError|RangeError|\bundefined\b|ERR_[A-Z]|Cannot read prop|at .*\.ts:|ENOTEMPTY|EBUSY/u;
const SETTLE_MS = 5000;
const SMALL_ZPOOL = `lighter-small-${process.pid}`;

/** What an image was good for. */
export interface Fate {
  readonly stage: 'upload' | 'import' | 'create' | 'start' | 'started';
  /** Empty when it started. */
  readonly error: string;
}

export const directory = (name: string): Member => ({ name, type: '5', mode: 0o755 });
export const file = (name: string | Buffer, data: string | Buffer = 'evil'): Member => ({ name, data });
export const link = (name: string, to: string): Member => ({ name, type: '2', link: to });
export const hardLink = (name: string, to: string): Member => ({ name, type: '1', link: to });

/** A whole image of these members, behind the metadata and a root that has nothing in it. */
export function bareImage(members: readonly Member[], metadata: string | Buffer = METADATA): Buffer {
  return tar([file('metadata.yaml', metadata), directory('rootfs/'), ...members]);
}

export class HostileLab implements AsyncDisposable {
  readonly daemon: TestDaemon;
  /** Everybody may write there. */
  readonly outside: string;
  readonly #bootable: Buffer;
  /** Where the instances go when useSmallPool() was called. */
  smallPool = '';
  #untouched = '';
  #quiet = '';
  #count = 0;

  private constructor(daemon: TestDaemon, outside: string, bootable: Buffer) {
    this.daemon = daemon;
    this.outside = outside;
    this.#bootable = bootable;
  }

  static async start(driver = HOSTILE_DRIVER): Promise<HostileLab> {
    const outside = await mkdtemp(join(tmpdir(), 'lighter-outside-'));
    await mkdir(join(outside, 'folder'));
    for (const name of ['secret', 'folder/file']) await writeFile(join(outside, name), 'of the host');
    await run('chmod', ['-R', 'a+rwX', outside]);
    const daemon = await TestDaemon.start(driver);
    const lab = new HostileLab(daemon, outside, await bootableMembers());
    lab.#untouched = await lab.#surroundings();
    // What the first container ever makes stays: the directory of its mounts, servers that later ones share.
    expect(await lab.fate(lab.image([]))).toEqual({ stage: 'started', error: '' });
    lab.#quiet = await lab.#leftovers();
    return lab;
  }

  /** From now on images are unpacked where there is little room. */
  async useSmallPool(sizeBytes: number): Promise<void> {
    this.smallPool = await mkdtemp(join(tmpdir(), 'lighter-small-'));
    const config = await this.#smallConfig(sizeBytes);
    const pool = { name: 'small', driver: HOSTILE_DRIVER, config };
    const { error } = await this.daemon.call('POST', '/1.0/storage-pools', pool);
    expect(error).toBe('');
    expect(await this.fate(this.image([]))).toEqual({ stage: 'started', error: '' });
    this.#quiet = await this.#leftovers();
  }

  async #smallConfig(sizeBytes: number): Promise<Record<string, string>> {
    if (HOSTILE_DRIVER === 'zfs') return { size: '64MiB', 'zfs.pool_name': SMALL_ZPOOL };
    if (HOSTILE_DRIVER === 'btrfs') await this.#mountBtrfs(sizeBytes);
    else await run('mount', ['-t', 'tmpfs', '-o', `size=${sizeBytes},nr_inodes=6k,mode=711`, 'tmpfs', this.smallPool]);
    return { source: this.smallPool };
  }

  async #mountBtrfs(sizeBytes: number): Promise<void> {
    const disk = `${this.smallPool}.img`;
    await run('truncate', ['-s', String(sizeBytes), disk]);
    await run('mkfs.btrfs', ['-q', '--mixed', disk]);
    await run('mount', ['-o', 'loop', disk, this.smallPool]);
    await run('chmod', ['711', this.smallPool]);
    // It has the loop device, and that goes with the mount.
    await rm(disk);
  }

  async freeBytes(): Promise<number> {
    if (HOSTILE_DRIVER === 'zfs') {
      return Number((await run('zfs', ['get', '-Hp', '-o', 'value', 'available', SMALL_ZPOOL])).stdout);
    }
    // What is deleted there goes in the background.
    if (HOSTILE_DRIVER === 'btrfs') await run('btrfs', ['subvolume', 'sync', this.smallPool]);
    const { bavail, bsize } = await statfs(this.smallPool);
    return bavail * bsize;
  }

  /** An image that boots, if the further members let it. */
  image(members: readonly Member[], metadata: string | Buffer = METADATA): Buffer {
    return Buffer.concat([tar([file('metadata.yaml', metadata)], { end: false }), this.#bootable, tar(members)]);
  }

  upload(content: Buffer, headers: Record<string, string> = {}): Promise<Answer> {
    const type = { 'content-type': 'application/octet-stream' };
    return this.daemon.call('POST', '/1.0/images', content, { ...type, ...headers });
  }

  /** How an operation ended: empty, or its error. */
  async end({ operation }: Answer): Promise<string> {
    const { metadata } = await this.daemon.call('GET', `${operation}/wait?timeout=100`);
    return metadata.status_code === 200 ? '' : String(metadata.err);
  }

  /** Imports it, makes an instance of it and starts that, as far as that goes; removes all of it. */
  async fate(content: Buffer, headers: Record<string, string> = {}): Promise<Fate> {
    const uploaded = await this.upload(content, headers);
    if (uploaded.type !== 'async') return { stage: 'upload', error: uploaded.error };
    const error = await this.end(uploaded);
    if (error !== '') return { stage: 'import', error };
    const { metadata } = await this.daemon.call('GET', uploaded.operation);
    return this.fateOfImported(metadata.metadata.fingerprint);
  }

  async fateOfImported(fingerprint: string, look: (name: string) => Promise<void> = async () => {}): Promise<Fate> {
    const name = `h${this.#count++}`;
    const root = { type: 'disk', path: '/', pool: 'small' };
    const source = { type: 'image', fingerprint };
    const body = { name, source, ...(this.smallPool !== '' && { devices: { root } }) };
    try {
      const refused = await this.end(await this.daemon.call('POST', '/1.0/instances', body));
      if (refused !== '') return { stage: 'create', error: refused };
      const state = { action: 'start' };
      const failed = await this.end(await this.daemon.call('PUT', `/1.0/instances/${name}/state`, state));
      await look(name);
      return failed === '' ? { stage: 'started', error: '' } : { stage: 'start', error: failed };
    } finally {
      await this.#remove(name);
      await this.daemon.operate('DELETE', `/1.0/images/${fingerprint}`);
    }
  }

  async #remove(name: string): Promise<void> {
    const { status, metadata } = await this.daemon.call('GET', `/1.0/instances/${name}`);
    if (status !== 200) return;
    if (metadata.status !== 'Stopped') {
      await this.daemon.operate('PUT', `/1.0/instances/${name}/state`, { action: 'stop', force: true });
    }
    await this.daemon.operate('DELETE', `/1.0/instances/${name}`);
  }

  /** The longest that the daemon did not answer while `work` went on. */
  async deafnessDuring<T>(work: Promise<T>): Promise<{ result: T; deafMs: number }> {
    const done = new AbortController();
    let deafMs = 0;
    const asking = (async () => {
      while (!done.signal.aborted) {
        const before = Date.now();
        await this.daemon.call('GET', '/1.0');
        deafMs = Math.max(deafMs, Date.now() - before);
        await setTimeout(20);
      }
    })();
    try {
      return { result: await work, deafMs };
    } finally {
      done.abort();
      await asking;
    }
  }

  /** Says what is wrong with how it went, and with what it left. */
  async expectHarmless(fate: Fate): Promise<void> {
    if (fate.stage !== 'started') expect(fate.error).not.toMatch(UNCLEAR);
    expect(await this.#surroundings()).toBe(this.#untouched);
    const settled = async () => ((await this.#leftovers()) === this.#quiet ? true : undefined);
    await poll(settled, 50, AbortSignal.timeout(SETTLE_MS)).catch(async () => {
      const [expected, found] = [this.#quiet, await this.#leftovers()];
      this.#quiet = found; // what one leaves is no fault of the next
      expect(found.split('\n')).toEqual(expected.split('\n'));
    });
    expect((await this.daemon.call('GET', '/1.0')).status).toBe(200);
  }

  /** Everything outside that an escape might change. */
  async #surroundings(): Promise<string> {
    const listed = await run('find', [this.outside, '-printf', '%p %m %U:%G %n %y %s %l %T@\n']);
    const contents = await Promise.all(
      ['secret', 'folder/file'].map((name) => readFile(join(this.outside, name), 'utf8')),
    );
    const evil = (await readdir('/tmp')).filter((name) => name.startsWith('evil'));
    return [listed.stdout, ...contents, ...evil].join('\n');
  }

  /** Files and mounts of the daemon, and its children: only what it has when it does nothing. */
  async #leftovers(): Promise<string> {
    const { root } = this.daemon;
    const pool = join(root, 'storage-pools', this.smallPool === '' ? 'default' : 'small');
    const places = [root, 'images', 'containers', 'instances', 'work', 'disks', 'devices', 'backups', 'snapshots'].map(
      (name) => (name === root ? root : join(root, name)),
    );
    for (const name of await readdir(pool)) places.push(join(pool, name));
    const lists = await Promise.all(places.map((place) => readdir(place).catch(() => [])));
    const files = places.map((place, index) => `${place}: ${lists[index]?.sort().join(' ')}`);
    const datasets =
      HOSTILE_DRIVER === 'zfs' ? (await run('zfs', ['list', '-H', '-o', 'name', '-t', 'all'])).stdout : '';
    return [...files, datasets, ...(await this.daemon.mounts()), await this.daemon.children()].join('\n');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.daemon[Symbol.asyncDispose]();
    if (this.smallPool !== '') {
      if (HOSTILE_DRIVER === 'zfs') await run('zpool', ['destroy', '-f', SMALL_ZPOOL]);
      else await run('umount', [this.smallPool]);
      await rm(this.smallPool, { recursive: true });
    }
    await rm(this.outside, { recursive: true, force: true });
  }
}

/** rootfs/ of a busybox that boots, without the end of a tar. */
async function bootableMembers(): Promise<Buffer> {
  const scratch = await mkdtemp(join(tmpdir(), 'hostile-root-'));
  try {
    await makeBusyboxRoot(join(scratch, 'rootfs'));
    const plain = ['--numeric-owner', '--owner=0', '--group=0', '-b', '1', '-cf', join(scratch, 'root.tar')];
    await run('tar', ['-C', scratch, ...plain, 'rootfs']);
    const whole = await readFile(join(scratch, 'root.tar'));
    return whole.subarray(0, whole.length - 1024);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
