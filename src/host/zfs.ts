// zfs(8) and zpool(8): typed, with their complaints as kinds of errors. Works with OpenZFS and with zfs-fuse (pool version 23).
import { AppError, type ErrorKind } from '#src/lib/errors.ts';
import { KeyedLock } from '#src/lib/keyed-lock.ts';
import { limited, sleep } from '#src/lib/wait.ts';
import { CommandError } from './command-error.ts';
import type { Argv, Host } from './host.ts';
import { streamed } from './streamed.ts';

export type ZfsProperties = Readonly<Record<string, string>>;

export interface ZfsDataset {
  readonly name: string;
  /** What was asked for; '-' when a property is not set. */
  readonly properties: ZfsProperties;
}

export interface ZfsStream {
  /** A snapshot. */
  readonly from: string;
  /** An older snapshot of the same dataset, or its origin: only what is new since then is sent. */
  readonly base?: string | undefined;
  /** A dataset that is absent, or, with a base of its own, has nothing newer than that. */
  readonly to: string;
}

export interface ZfsSending extends Omit<ZfsStream, 'to'> {
  /** Blocks as they are on the disk; zfs-fuse cannot. */
  readonly compress?: boolean;
}

const COMMAND_LIMIT_MS = 5 * 60_000;
const STREAM_LIMIT_MS = 24 * 3600_000;
/** How long "dataset is busy" is taken for a mount that is on its way out. */
const BUSY_LIMIT_MS = 20_000;
/** The same where the caller can do without. */
const SHORT_LIMIT_MS = 3000;
const BUSY_PAUSE_MS = 100;

/** Its clone mounts whatever `canmount` says. */
const MOUNTING: ReadonlySet<string> = new Set(['mount', 'create', 'clone', 'rename', 'rollback']);

/**
 * zfs-fuse hands a new mount to its readers over a pipe, in several writes and without a lock: two at a time mix, and its
 * daemon never answers again. So what may mount goes one after another.
 */
function mayMount([program, verb = '', argument = '']: Argv): boolean {
  return program === 'zfs' && (MOUNTING.has(verb) || (verb === 'set' && argument.startsWith('mountpoint=')));
}

const COMPLAINTS: readonly (readonly [RegExp, ErrorKind])[] = [
  [/does not exist|no such pool|could not find any/, 'not_found'],
  [/already exists|dependent clones|is cloned|is part of active pool/, 'conflict'],
  [/is busy|resource busy|failed to unmount|umount failed/i, 'unavailable'],
  // of zfs-fuse, while a mount is on its way out
  [/cannot rollback .*I\/O error/, 'unavailable'],
  [/invalid (property|vdev|dataset|character)|too long|out of range|must be|less than|size is|too small/, 'invalid'],
];

const IN_USE = 'some process still has files of it open';

function translate(error: unknown): unknown {
  if (!(error instanceof CommandError) || error.exitCode === null) return error;
  const kind = COMPLAINTS.find(([pattern]) => pattern.test(error.stderr))?.[1];
  return kind ? new AppError(kind, readable(error.stderr), { cause: error }) : error;
}

/** "dataset is busy" tells nobody what to do. */
function readable(stderr: string): string {
  return stderr
    .trim()
    .replaceAll('\n', '; ')
    .replace(/(?:dataset|pool|device or resource) is busy|device or resource busy/gi, IN_USE);
}

function isKind(error: unknown, kind: ErrorKind): boolean {
  return error instanceof AppError && error.kind === kind;
}

function options(properties: ZfsProperties): readonly string[] {
  return Object.entries(properties).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
}

type Commands = Pick<Host, 'run' | 'start' | 'exists'>;

/** One per host, whatever the number of pools. */
const mounting = new WeakMap<Commands, KeyedLock>();

function mountingOn(host: Commands): KeyedLock {
  const lock = mounting.get(host) ?? new KeyedLock();
  mounting.set(host, lock);
  return lock;
}

/** Whether zfs is OpenZFS in the kernel; else it is zfs-fuse. */
export function isZfsInKernel(host: Pick<Host, 'exists'>): Promise<boolean> {
  return host.exists('/sys/module/zfs');
}

export class Zfs {
  readonly #host: Commands;
  readonly #mounting: KeyedLock;
  #inKernel: Promise<boolean> | undefined;

  constructor(host: Commands) {
    this.#host = host;
    this.#mounting = mountingOn(host);
  }

  async #needsTurn(argv: Argv): Promise<boolean> {
    if (!mayMount(argv)) return false;
    this.#inKernel ??= isZfsInKernel(this.#host);
    return !(await this.#inKernel);
  }

  async #run(argv: Argv, signal: AbortSignal): Promise<string> {
    const work = async () => (await this.#host.run(argv, { signal, timeoutMs: COMMAND_LIMIT_MS })).stdout;
    try {
      return await ((await this.#needsTurn(argv)) ? this.#mounting.run('', work, signal) : work());
    } catch (error) {
      throw translate(error);
    }
  }

  /** Once more while the dataset is busy: a mount that was detached takes a moment to be gone. */
  async #patiently(argv: Argv, signal: AbortSignal, limitMs = BUSY_LIMIT_MS): Promise<string> {
    const limit = limited(limitMs, signal);
    for (;;) {
      try {
        return await this.#run(argv, signal);
      } catch (error) {
        if (!isKind(error, 'unavailable') || limit.aborted) throw error;
        await sleep(BUSY_PAUSE_MS, signal);
      }
    }
  }

  async createPool(
    name: string,
    device: string,
    { signal, root }: { root: ZfsProperties; signal: AbortSignal },
  ): Promise<void> {
    const properties = Object.entries(root).flatMap(([key, value]) => ['-O', `${key}=${value}`]);
    await this.#run(['zpool', 'create', '-m', 'none', ...properties, name, device], signal);
  }

  /** Absent is success. */
  async destroyPool(name: string, signal: AbortSignal): Promise<void> {
    await absentIsFine(this.#patiently(['zpool', 'destroy', '-f', name], signal));
  }

  /** Takes all of a device that has grown: at once, or with zfs-fuse when the pool is imported again. */
  async growPool(name: string, device: string, signal: AbortSignal): Promise<void> {
    await this.#run(['zpool', 'set', 'autoexpand=on', name], signal);
    await this.#run(['zpool', 'online', '-e', name, device], signal);
  }

  /** AppError 'unavailable' while anything of it is used. */
  async exportPool(name: string, signal: AbortSignal): Promise<void> {
    await this.#run(['zpool', 'export', name], signal);
  }

  /** Looks for the pool's devices in the folder. */
  async importPool(name: string, folder: string | undefined, signal: AbortSignal): Promise<void> {
    await this.#run(['zpool', 'import', '-f', ...(folder === undefined ? [] : ['-d', folder]), name], signal);
  }

  /** Imported only to be read; of OpenZFS. */
  async isReadonlyPool(name: string, signal: AbortSignal): Promise<boolean> {
    const text = await this.#run(['zpool', 'get', '-H', '-o', 'value', 'readonly', name], signal);
    return text.trim() === 'on';
  }

  /** AppError 'conflict' when it exists. */
  async create(dataset: string, properties: ZfsProperties, signal: AbortSignal): Promise<void> {
    await this.#run(['zfs', 'create', ...options(properties), dataset], signal);
  }

  /** Its own properties: what its dataset has would be shown else, as it is now. AppError 'conflict' when it exists. */
  async snapshot(name: string, signal: AbortSignal, properties: ZfsProperties = {}): Promise<void> {
    await this.#run(['zfs', 'snapshot', ...options(properties), name], signal);
  }

  /** In the order of their creation. [] when the dataset is absent. */
  async snapshots(
    dataset: string,
    signal: AbortSignal,
    properties: readonly string[] = [],
  ): Promise<readonly ZfsDataset[]> {
    const names = ['createtxg', ...properties];
    const argv: Argv = [
      'zfs',
      'list',
      '-H',
      '-t',
      'snapshot',
      '-r',
      '-d',
      '1',
      '-o',
      ['name', ...names].join(','),
      dataset,
    ];
    const rows = await this.#run(argv, signal).catch((error: unknown) => {
      if (isKind(error, 'not_found')) return '';
      throw error;
    });
    const at = ({ properties: { createtxg } }: ZfsDataset): number => Number(createtxg);
    return datasets(rows, names).toSorted((left, right) => at(left) - at(right));
  }

  /** The clone becomes what its origin was: the snapshots up to that one are its own. */
  async promote(dataset: string, signal: AbortSignal): Promise<void> {
    await this.#run(['zfs', 'promote', dataset], signal);
  }

  /** Nothing is mounted. A stream that is cut off leaves nothing of the dataset that it was to make. */
  async transfer({ from, base, to }: ZfsStream, signal: AbortSignal): Promise<void> {
    const limits = { signal, timeoutMs: STREAM_LIMIT_MS };
    const send = this.#host.start(['zfs', 'send', ...(base === undefined ? [] : ['-i', base]), from], limits);
    const receive = this.#host.run(['zfs', 'receive', '-u', '-F', to], { ...limits, input: send.stdout });
    const results = await Promise.allSettled([send.done, receive]);
    for (const result of results) if (result.status === 'rejected') throw translate(result.reason);
  }

  /** Runs `use` with the stream of a snapshot; what is not read of it ends with `use`. */
  async send(
    { from, base, compress = false }: ZfsSending,
    use: (stream: NodeJS.ReadableStream) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const options = [...(compress ? ['-c', '-L'] : []), ...(base === undefined ? [] : ['-i', base])];
    await streamed(this.#host, { argv: ['zfs', 'send', ...options, from], use, signal }).catch((error: unknown) => {
      throw translate(error);
    });
  }

  /**
   * Makes the snapshot, and its dataset what is in it: one that is absent or without snapshots, or that has the base of the stream as its
   * newest. Nothing is mounted. A stream that breaks changes nothing.
   */
  async receive(snapshot: string, stream: NodeJS.ReadableStream, signal: AbortSignal): Promise<void> {
    this.#inKernel ??= isZfsInKernel(this.#host);
    const own = (await this.#inKernel) ? ['-x', 'mountpoint'] : []; // zfs-fuse does not know -x
    const limits = { signal, timeoutMs: STREAM_LIMIT_MS };
    try {
      await this.#host.run(['zfs', 'receive', '-u', '-F', ...own, snapshot], { ...limits, input: stream });
    } catch (error) {
      throw translate(error);
    }
  }

  /** All that follows is lost. */
  async rollback(snapshot: string, signal: AbortSignal): Promise<void> {
    await this.#patiently(['zfs', 'rollback', '-r', snapshot], signal);
  }

  /** AppError 'not_found' without the snapshot, 'conflict' when the clone exists. */
  async clone(
    snapshot: string,
    { dataset, properties }: { dataset: string; properties: ZfsProperties },
    signal: AbortSignal,
  ): Promise<void> {
    await this.#patiently(['zfs', 'clone', ...options(properties), snapshot, dataset], signal);
  }

  async rename(dataset: string, newName: string, signal: AbortSignal): Promise<void> {
    await this.#patiently(['zfs', 'rename', dataset, newName], signal);
  }

  /** Whether it could be renamed; does not wait. */
  async renameUnlessBusy(dataset: string, newName: string, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#run(['zfs', 'rename', dataset, newName], signal);
      return true;
    } catch (error) {
      if (isKind(error, 'unavailable')) return false;
      throw error;
    }
  }

  /** With its snapshots. Absent is success; 'conflict' with dependent clones, 'unavailable' when it stays busy. */
  async destroy(dataset: string, signal: AbortSignal): Promise<void> {
    await absentIsFine(this.#patiently(['zfs', 'destroy', '-r', dataset], signal, SHORT_LIMIT_MS));
  }

  async set(dataset: string, properties: ZfsProperties, signal: AbortSignal): Promise<void> {
    for (const [name, value] of Object.entries(properties)) {
      const argv: Argv = ['zfs', 'set', `${name}=${value}`, dataset];
      // zfs-fuse mounts it anew at once, where another mount may be on its way out.
      await (name === 'mountpoint' ? this.#patiently(argv, signal) : this.#run(argv, signal));
    }
  }

  /** Takes back what was set. */
  async inherit(dataset: string, name: string, signal: AbortSignal): Promise<void> {
    await this.#run(['zfs', 'inherit', name, dataset], signal);
  }

  /** Exact numbers, '-' for what is not set. AppError 'not_found' when the dataset is absent. */
  async get(dataset: string, names: readonly string[], signal: AbortSignal): Promise<ZfsProperties> {
    const text = await this.#run(['zfs', 'get', '-Hp', '-o', 'property,value', names.join(','), dataset], signal);
    return Object.fromEntries(lines(text).map(([name = '', value = '-']) => [name, value]));
  }

  /** What was set on the dataset itself. */
  async localProperties(dataset: string, signal: AbortSignal): Promise<ZfsProperties> {
    const text = await this.#run(['zfs', 'get', '-Hp', '-s', 'local', '-o', 'property,value', 'all', dataset], signal);
    return Object.fromEntries(lines(text).map(([name = '', value = '']) => [name, value]));
  }

  async exists(dataset: string, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#run(['zfs', 'list', '-H', '-o', 'name', dataset], signal);
      return true;
    } catch (error) {
      if (isKind(error, 'not_found')) return false;
      throw error;
    }
  }

  /** All below the dataset, itself left out. [] when it is absent. */
  async listBelow(
    dataset: string,
    {
      type,
      properties = [],
    }: { type: 'filesystem' | 'snapshot' | 'filesystem,volume'; properties?: readonly string[] },
    signal: AbortSignal,
  ): Promise<readonly ZfsDataset[]> {
    const argv: Argv = ['zfs', 'list', '-H', '-r', '-t', type, '-o', ['name', ...properties].join(','), dataset];
    const rows = await this.#run(argv, signal).catch((error: unknown) => {
      if (isKind(error, 'not_found')) return '';
      throw error;
    });
    return datasets(rows, properties).filter(({ name }) => name.startsWith(`${dataset}/`));
  }

  /** By its mountpoint property; for zfs-fuse, which mount(2) does not know. Mounted is success. */
  async mount(dataset: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#patiently(['zfs', 'mount', dataset], signal);
    } catch (error) {
      if (!String(error).includes('already mounted')) throw error;
    }
  }

  /** Not mounted, or absent, is success; AppError 'unavailable' when it is in use. */
  async unmount(dataset: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#run(['zfs', 'umount', dataset], signal);
    } catch (error) {
      if (!/not currently mounted|does not exist/.test(String(error))) throw error;
    }
  }
}

function datasets(rows: string, properties: readonly string[]): readonly ZfsDataset[] {
  return lines(rows).map(([name = '', ...values]) => ({
    name,
    properties: Object.fromEntries(properties.map((property, index) => [property, values[index] ?? '-'])),
  }));
}

function lines(text: string): readonly (readonly string[])[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.split('\t'));
}

async function absentIsFine(work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!isKind(error, 'not_found')) throw error;
  }
}
