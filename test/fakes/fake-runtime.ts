// An in-memory container runtime: starts, ends and freezes nothing but records.
import { access, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import type {
  RunningContainer,
  RuntimeCheckpoint,
  RuntimeCommand,
  RuntimeConsole,
  RuntimeContainer,
  RuntimeDriver,
  RuntimeExit,
  RuntimeLimits,
  RuntimeMount,
  RuntimeProcess,
  RuntimeSpec,
  RuntimeState,
  RuntimeStatistics,
  RuntimeUsage,
} from '#drivers/runtime/driver.ts';
import { AppError } from '#src/lib/errors.ts';

interface Life {
  state: RuntimeState;
  pid: number;
  ended: PromiseWithResolvers<RuntimeExit>;
}

export class FakeRuntime implements RuntimeDriver {
  readonly name = 'fake';
  readonly calls: string[] = [];
  /** Last written, by container. */
  readonly specs = new Map<string, RuntimeSpec>();
  /** The next start of these fails with this text. */
  readonly failures = new Map<string, string>();
  /** Inits that do not react to a shutdown request. */
  readonly deaf = new Set<string>();
  /** Mount points that attachMount() made, by container. */
  readonly attached = new Map<string, readonly string[]>();
  /** Containers whose left mounts were looked for. */
  readonly adopted: string[] = [];
  /** Limits as they are now, by init. */
  readonly limits = new Map<number, RuntimeLimits>();
  /** The next change of limits, mount, or checkpoint, of a running container fails with this text. */
  refusal: string | undefined;
  /** Why no state can be kept. */
  criuRefusal: string | undefined;
  readonly #lives = new Map<string, Life>();
  #nextPid = 1000;

  version(): Promise<string> {
    return Promise.resolve('5.0.2');
  }

  validateRaw(raw: string): void {
    if (raw.includes('lxc.log.file')) throw new AppError('invalid', 'Setting lxc.log.file is not allowed');
  }

  renderConfig(container: RuntimeContainer, spec: RuntimeSpec): Promise<string> {
    return Promise.resolve(JSON.stringify({ container, spec }));
  }

  writeConfig(container: RuntimeContainer, spec: RuntimeSpec): Promise<void> {
    this.specs.set(container.name, spec);
    return Promise.resolve();
  }

  async start({ name }: RuntimeContainer, signal: AbortSignal): Promise<void> {
    this.calls.push(`start ${name}`);
    signal.throwIfAborted();
    const failure = this.failures.get(name);
    this.failures.delete(name);
    if (failure !== undefined) throw new AppError('internal', failure);
    if (this.#lives.has(name)) throw new AppError('conflict', `${name} runs already`);
    this.#lives.set(name, { state: 'running', pid: this.#nextPid++, ended: Promise.withResolvers() });
  }

  async checkCheckpoints(criu: string): Promise<void> {
    this.calls.push(`check ${criu}`);
    if (this.criuRefusal !== undefined) throw new AppError('unsupported', this.criuRefusal);
  }

  /** Writes nothing but the name of the container. */
  async checkpoint({ name }: RuntimeContainer, made: RuntimeCheckpoint & { readonly stop: boolean }): Promise<void> {
    const { directory, criu, stop } = made;
    this.calls.push(`checkpoint ${name} by ${criu}`);
    await mkdir(directory, { recursive: true });
    this.#refuse();
    await writeFile(join(directory, 'whole'), name);
    if (stop) this.powerOff(name);
  }

  hasCheckpoint(directory: string): Promise<boolean> {
    return access(join(directory, 'whole')).then(
      () => true,
      () => false,
    );
  }

  async restore(container: RuntimeContainer, { directory }: RuntimeCheckpoint, signal: AbortSignal): Promise<void> {
    this.calls.push(`restore ${container.name}`);
    if (!(await this.hasCheckpoint(directory))) throw new AppError('internal', 'nothing to restore');
    await this.start(container, signal);
  }

  async watch({ name }: RuntimeContainer, signal: AbortSignal): Promise<RuntimeExit> {
    const life = this.#lives.get(name);
    if (!life) return 'stopped';
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const onAbort = (): void => reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      return await Promise.race([life.ended.promise, aborted]);
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  kill({ name }: RuntimeContainer): Promise<void> {
    this.calls.push(`kill ${name}`);
    this.powerOff(name);
    return Promise.resolve();
  }

  requestShutdown({ name }: RuntimeContainer): Promise<void> {
    this.calls.push(`shutdown ${name}`);
    if (!this.deaf.has(name)) this.powerOff(name);
    return Promise.resolve();
  }

  requestReboot({ name }: RuntimeContainer): Promise<void> {
    this.calls.push(`reboot ${name}`);
    this.reboot(name);
    return Promise.resolve();
  }

  freeze({ name }: RuntimeContainer): Promise<void> {
    this.#running(name).state = 'frozen';
    return Promise.resolve();
  }

  unfreeze({ name }: RuntimeContainer): Promise<void> {
    this.#running(name).state = 'running';
    return Promise.resolve();
  }

  state({ name }: RuntimeContainer): Promise<RuntimeState> {
    return Promise.resolve(this.#lives.get(name)?.state ?? 'stopped');
  }

  initPid({ name }: RuntimeContainer): Promise<number | undefined> {
    return Promise.resolve(this.#lives.get(name)?.pid);
  }

  usage(): Promise<RuntimeUsage> {
    return Promise.resolve({ cpuNs: 1_000_000, memoryBytes: 4096, processes: 1 });
  }

  statistics(): Promise<RuntimeStatistics> {
    return Promise.resolve({ memory: { rss: 4096 }, cpuUserNs: 1e9, cpuSystemNs: 2e9, disks: [] });
  }

  /** Echoes its input until that ends; `exit N` as the command ends at once with N. */
  attach({ name }: RuntimeContainer, command: RuntimeCommand): Promise<RuntimeProcess> {
    this.calls.push(`attach ${name} ${command.argv.join(' ')}`);
    this.#running(name);
    const stdio = new PassThrough();
    const stderr = new PassThrough();
    const exited = Promise.withResolvers<number>();
    const [program, code] = command.argv;
    const end = (result: number) => {
      exited.resolve(result);
      stdio.destroy();
      stderr.destroy();
    };
    stdio.on('end', () => end(0));
    if (program === 'exit') end(Number(code));
    return Promise.resolve({
      stdin: stdio,
      stdout: stdio,
      stderr,
      exited: exited.promise,
      kill: (signal) => end(128 + signal),
      resize: ({ width, height }) => this.calls.push(`resize ${name} ${width}x${height}`),
    });
  }

  /** Echoes. */
  openConsole({ name }: RuntimeContainer): Promise<RuntimeConsole> {
    const life = this.#running(name);
    const stdio = new PassThrough();
    void life.ended.promise.then(() => stdio.end());
    return Promise.resolve({
      output: stdio,
      input: stdio,
      resize: ({ width, height }) => this.calls.push(`resize console ${name} ${width}x${height}`),
      close: () => stdio.destroy(),
    });
  }

  async attachMount({ container }: RunningContainer, { target }: RuntimeMount): Promise<void> {
    this.#refuse();
    this.attached.set(container.name, [...(this.attached.get(container.name) ?? []), target]);
  }

  async adopt({ name }: RuntimeContainer): Promise<void> {
    this.adopted.push(name);
  }

  async detachMount({ container }: RunningContainer, { target }: Pick<RuntimeMount, 'target'>): Promise<void> {
    const left = (this.attached.get(container.name) ?? []).filter((one) => one !== target);
    this.attached.set(container.name, left);
  }

  setDeviceRule({ container }: RunningContainer, rule: string, allowed: boolean): Promise<void> {
    this.calls.push(`${allowed ? 'allow' : 'deny'} ${container.name} ${rule}`);
    return Promise.resolve();
  }

  async setLimits(initPid: number, _before: RuntimeLimits, after: RuntimeLimits): Promise<void> {
    this.#refuse();
    this.limits.set(initPid, after);
  }

  #refuse(): void {
    const { refusal } = this;
    this.refusal = undefined;
    if (refusal !== undefined) throw new AppError('internal', refusal);
  }

  cleanUp({ name }: RuntimeContainer): Promise<void> {
    this.calls.push(`cleanUp ${name}`);
    return Promise.resolve();
  }

  /** What `poweroff` inside, or the end of init, does. */
  powerOff(name: string): void {
    const life = this.#lives.get(name);
    this.#lives.delete(name);
    life?.ended.resolve('stopped');
  }

  /** What `reboot` inside does. */
  reboot(name: string): void {
    const life = this.#running(name);
    this.#lives.set(name, { state: 'running', pid: this.#nextPid++, ended: Promise.withResolvers() });
    life.ended.resolve('rebooted');
  }

  #running(name: string): Life {
    const life = this.#lives.get(name);
    if (!life) throw new AppError('conflict', `${name} does not run`);
    return life;
  }
}
