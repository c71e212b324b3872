// A machine in memory: records what it is asked to run, answers from a script, keeps files in a map, honours signals.
import { PassThrough, Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { AppError } from '#src/lib/errors.ts';
import { CommandError } from '#src/host/command-error.ts';
import type {
  Argv,
  DeviceNode,
  FileStatus,
  FileSystemUsage,
  Host,
  OwnerShift,
  RunningCommand,
  RunOptions,
  RunResult,
} from '#src/host/host.ts';
import { idMapKey } from '#src/host/id-map.ts';
import { FakeBtrfs } from './fake-btrfs.ts';
import { FakeLinks } from './fake-links.ts';
import { FakeMounts } from './fake-mounts.ts';
import { FakePorts } from './fake-ports.ts';
import { FakeProjectQuotas } from './fake-project-quotas.ts';

export interface FakeCall {
  /** The argv, joined by spaces. */
  readonly line: string;
  readonly argv: Argv;
  readonly input: string;
  readonly options: RunOptions;
}

export type Answer = string | Partial<RunResult> | Promise<string | Partial<RunResult>>;
type Script = (call: FakeCall) => Answer;

export class FakeHost implements Host {
  /** Command lines and mounts in the order they came. */
  readonly calls: string[] = [];
  /** What run() and start() were called with, in full. */
  readonly commands: FakeCall[] = [];
  /** Path → contents; a directory is a path with the value null. */
  readonly files = new Map<string, string | null>([['/', null]]);
  readonly links = new FakeLinks(this.calls, this.files);
  readonly ports = new FakePorts(this.calls);
  readonly mounts = new FakeMounts(this.calls);
  readonly projectQuotas = new FakeProjectQuotas();
  readonly btrfs: FakeBtrfs = new FakeBtrfs(this);
  readonly #attributes = new Map<string, Pick<FileStatus, 'mode' | 'uid' | 'gid'>>();
  /** Extended attributes: path, a zero byte, name. */
  readonly xattrs = new Map<string, string>();
  readonly #scripts: { readonly pattern: RegExp; readonly answer: Script }[] = [];

  /** Answers commands whose line matches; the latest matching rule wins. */
  on(pattern: RegExp, answer: string | Script): this {
    this.#scripts.unshift({ pattern, answer: typeof answer === 'string' ? () => answer : answer });
    return this;
  }

  fail(pattern: RegExp, stderr: string, exitCode = 1): this {
    return this.on(pattern, () => ({ stderr, exitCode }));
  }

  async run(argv: Argv, options: RunOptions = {}): Promise<RunResult> {
    options.signal?.throwIfAborted();
    const input = await readInput(options.input);
    const call = { line: argv.join(' '), argv, input, options };
    this.calls.push(call.line);
    this.commands.push(call);
    const answer = await orAbort(this.#answer(call), argv, options.signal);
    const result = {
      stdout: '',
      stderr: '',
      exitCode: 0,
      ...(typeof answer === 'string' ? { stdout: answer } : answer),
    };
    if (!(options.okExitCodes ?? [0]).includes(result.exitCode)) throw new CommandError(argv, result);
    return result;
  }

  /** The command "runs" when its input has ended; commands that never get input end at once. */
  start(argv: Argv, options: Omit<RunOptions, 'input'> = {}): RunningCommand {
    const stdin = new PassThrough();
    const stdout = new PassThrough();
    if (options.inputFile !== undefined) stdin.end(); // the file is the input
    const done = this.run(argv, { ...options, input: stdin }).then(
      (result) => {
        stdout.end(result.stdout);
        return { stderr: result.stderr, exitCode: result.exitCode };
      },
      (error: unknown) => {
        stdout.end();
        throw error;
      },
    );
    done.catch(() => {});
    return { pid: 4242, stdin, stdout, done };
  }

  async readBytes(path: string): Promise<Uint8Array> {
    return Buffer.from(await this.readFile(path));
  }

  readFile(path: string): Promise<string> {
    const data = this.files.get(path);
    if (typeof data !== 'string') return Promise.reject(new AppError('not_found', `cannot read ${path}: no such file`));
    return Promise.resolve(data);
  }

  /** Bytes that are no text are kept as latin1. */
  async writeFile(path: string, data: string | Uint8Array, options: { readonly mode?: number } = {}): Promise<void> {
    const text = typeof data === 'string' ? data : Buffer.from(data).toString('latin1');
    if (path.startsWith('/proc/') || path.startsWith('/sys/')) this.calls.push(`write ${path} ${text}`);
    this.files.set(path, text);
    if (options.mode !== undefined) this.#attributes.set(path, { mode: options.mode, uid: 0, gid: 0 });
    return Promise.resolve();
  }

  exists(path: string): Promise<boolean> {
    return Promise.resolve(this.files.has(path) || this.#below(path).length > 0);
  }

  list(path: string): Promise<readonly string[]> {
    const names = this.#below(path).map((file) => file.slice(path.length + 1).split('/')[0] ?? '');
    return Promise.resolve([...new Set(names)].sort());
  }

  makeDirectory(path: string, options: { readonly mode?: number; readonly fresh?: boolean } = {}): Promise<void> {
    if (options.fresh === true && this.files.has(path))
      return Promise.reject(new AppError('conflict', `${path} exists`));
    if (this.files.get(path) === undefined) {
      this.files.set(path, null);
      this.#attributes.set(path, { mode: options.mode ?? 0o755, uid: 0, gid: 0 });
    }
    return Promise.resolve();
  }

  async status(path: string): Promise<FileStatus> {
    if (!(await this.exists(path))) throw new AppError('not_found', `cannot look at ${path}: no such file`);
    const data = this.files.get(path);
    const kind = typeof data === 'string' ? 'file' : 'directory';
    return { kind, mode: 0o755, uid: 0, gid: 0, ...this.#attributes.get(path), sizeBytes: data?.length ?? 0 };
  }

  chown(path: string, uid: number, gid: number): Promise<void> {
    this.#attributes.set(path, { mode: this.#attributes.get(path)?.mode ?? 0o755, uid, gid });
    return Promise.resolve();
  }

  setMode(path: string, mode: number): Promise<void> {
    this.#attributes.set(path, { uid: 0, gid: 0, ...this.#attributes.get(path), mode });
    return Promise.resolve();
  }

  makeNode(path: string, { kind, major, minor }: DeviceNode): Promise<void> {
    this.calls.push(`mknod ${path} ${kind} ${major} ${minor}`);
    return Promise.resolve();
  }

  async rename(path: string, newPath: string): Promise<void> {
    if (!(await this.exists(path))) throw new AppError('not_found', `cannot rename ${path}: no such file`);
    if (this.#below(newPath).length > 0)
      throw new AppError('conflict', `cannot rename ${path}: ${newPath} is not empty`);
    this.calls.push(`rename ${path} ${newPath}`);
    this.#move(path, newPath);
  }

  exchange(path: string, other: string): Promise<void> {
    this.calls.push(`exchange ${path} ${other}`);
    this.#move(path, '/exchange');
    this.#move(other, path);
    this.#move('/exchange', other);
    return Promise.resolve();
  }

  copyTree(path: string, newPath: string): Promise<void> {
    for (const file of [path, ...this.#below(path)]) {
      this.files.set(newPath + file.slice(path.length), this.files.get(file) ?? null);
    }
    return Promise.resolve();
  }

  usage(): Promise<FileSystemUsage> {
    return Promise.resolve({ totalBytes: 1000, usedBytes: 400, availableBytes: 600, inodesTotal: 100, inodesUsed: 40 });
  }

  async shiftOwners(path: string, { from, to }: OwnerShift, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    await this.status(path);
    this.calls.push(`shift ${path} ${idMapKey(from)} ${idMapKey(to)}`);
  }

  attribute(path: string, name: string): Promise<string | undefined> {
    return Promise.resolve(this.xattrs.get(`${path}\0${name}`));
  }

  setAttribute(path: string, name: string, value: string): Promise<void> {
    this.xattrs.set(`${path}\0${name}`, value);
    return Promise.resolve();
  }

  removeTree(path: string): Promise<void> {
    this.calls.push(`remove ${path}`);
    for (const file of [path, ...this.#below(path)]) this.files.delete(file);
    return Promise.resolve();
  }

  #move(path: string, newPath: string): void {
    this.btrfs.moved(path, newPath);
    for (const file of [path, ...this.#below(path)]) {
      const data = this.files.get(file);
      const attributes = this.#attributes.get(file);
      this.files.delete(file);
      this.#attributes.delete(file);
      if (data !== undefined) this.files.set(newPath + file.slice(path.length), data);
      if (attributes) this.#attributes.set(newPath + file.slice(path.length), attributes);
    }
  }

  #below(path: string): readonly string[] {
    return [...this.files.keys()].filter((file) => file.startsWith(`${path}/`));
  }

  async #answer(call: FakeCall): Promise<string | Partial<RunResult>> {
    const script = this.#scripts.find(({ pattern }) => pattern.test(call.line));
    return script ? await script.answer(call) : '';
  }
}

async function readInput(input: RunOptions['input']): Promise<string> {
  if (input === undefined) return '';
  if (typeof input === 'string') return input;
  return input instanceof Uint8Array ? Buffer.from(input).toString() : await text(Readable.from(input));
}

async function orAbort<T>(work: Promise<T>, argv: Argv, signal?: AbortSignal): Promise<T> {
  if (!signal) return await work;
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  aborted.catch(() => {});
  const onAbort = () => reject(new CommandError(argv, { exitCode: null, stderr: '', cause: signal.reason }));
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    const result = await Promise.race([work, aborted]);
    if (signal.aborted) onAbort();
    return signal.aborted ? await aborted : result;
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
