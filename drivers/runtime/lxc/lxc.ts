// Containers by liblxc: its tools start them, its command socket and the kernel's files answer everything else.
import { dirname, join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import { together } from '#src/lib/together.ts';
import { limited } from '#src/lib/wait.ts';
import { readKernelFile } from '#src/host/kernel-files.ts';
import { sendSignal } from '#src/host/signal.ts';
import { Attacher } from '#src/host/attach/attacher.ts';
import { SystemCalls } from '#src/host/system-calls/system-calls.ts';
import type {
  RuntimeCheckpoint,
  RuntimeCommand,
  RuntimeConsole,
  RunningContainer,
  RuntimeContainer,
  RuntimeContext,
  RuntimeDriver,
  RuntimeExit,
  RuntimeLimits,
  RuntimeModule,
  RuntimeProcess,
  RuntimeMount,
  RuntimeSpec,
  RuntimeState,
  RuntimeStatistics,
  RuntimeUsage,
} from '../driver.ts';
import { apparmorRules, checkRules } from './apparmor.ts';
import { attachProcess } from './attach.ts';
import { checkCriu, type CheckpointParts, dump, isWhole, restore } from './checkpoint.ts';
import { type CgroupSetting, payloadGroup, readUsage } from './cgroups.ts';
import { askInitPid, askState, awaitExit, commandSocketPath, sendStop } from './command-socket.ts';
import { openConsole } from './console.ts';
import { CALLS_KEY, lxcConfig, type HostFeatures } from './config.ts';
import { ignoredLimits, layoutFor } from './kernel-limits.ts';
import { validateRawConfig } from './raw-config.ts';
import { lxcfsMounts, readHostFeatures } from './features.ts';
import { applyLimits } from './live-limits.ts';
import { checkInterception, intercepts, policyFiles, seccompPath } from './seccomp.ts';
import { haltSignal, startError } from './start-stop.ts';
import { readStatistics } from './statistics.ts';
import { SharedMounts } from './shared-mounts.ts';

const START_LIMIT_MS = 60_000;
const KILL_LIMIT_MS = 30_000;
const TOOL_LIMIT_MS = 30_000;
/**
 * liblxc forks newuidmap and newgidmap through a shell when it finds them, though root may write the maps itself.
 * Without them in PATH a start takes half the time.
 */
const PATH_WITHOUT_SHADOW = '/usr/sbin:/sbin';
/** Hooks of a raw.lxc run with lxc-start's environment. */
const PATH_FOR_HOOKS = '/usr/sbin:/usr/bin:/sbin:/bin';
const LXC_START = '/usr/bin/lxc-start';

class LxcRuntime implements RuntimeDriver {
  readonly name = 'lxc';
  readonly #context: RuntimeContext;
  readonly #attacher = new Attacher();
  readonly #shared: SharedMounts;
  readonly #calls: SystemCalls;
  /** Containers whose configuration, as it was written last, runs programs. */
  readonly #hooked = new Set<string>();
  /** The same, has calls intercepted. */
  readonly #intercepting = new Set<string>();
  #features: Promise<HostFeatures> | undefined;

  constructor(context: RuntimeContext) {
    this.#context = context;
    const root = dirname(context.containersPath);
    this.#shared = new SharedMounts(context.host, join(root, 'shmounts'));
    this.#calls = new SystemCalls(join(root, 'seccomp.socket'), context.log);
  }

  async version(signal: AbortSignal): Promise<string> {
    const { stdout } = await this.#context.host.run(['lxc-start', '--version'], { signal });
    return stdout.trim();
  }

  validateRaw(raw: string): void {
    validateRawConfig(raw);
  }

  async renderConfig(container: RuntimeContainer, spec: RuntimeSpec): Promise<string> {
    const { host, log } = this.#context;
    const features = await this.#readFeatures();
    const cgroups = await layoutFor(host, features.cgroups, spec.limits);
    return lxcConfig({
      container,
      spec,
      features: { ...features, cgroups, extraMounts: [...features.extraMounts, ...(await lxcfsMounts(host, log))] },
      seccompPath: seccompPath(container, spec),
      callsPath: intercepts(spec.seccomp) ? this.#calls.path : undefined,
      sharedMounts: this.#shared.directory(container),
    });
  }

  async writeConfig(container: RuntimeContainer, spec: RuntimeSpec, signal: AbortSignal): Promise<void> {
    const { host } = this.#context;
    const features = await this.#readFeatures();
    if (features.apparmor) await checkRules(host, apparmorRules(spec.apparmor), signal);
    checkInterception(spec.seccomp, features);
    const [text] = await together(
      this.renderConfig(container, spec),
      this.#shared.prepare(container),
      this.#warnOfLimits(container, spec),
    );
    const files = [[container.configPath, text] as const, ...policyFiles(container, spec)];
    await together(...files.map(([path, content]) => host.writeFile(path, content, { mode: 0o600 })));
    this.#hooked.delete(container.name);
    if (text.includes('lxc.hook.')) this.#hooked.add(container.name);
    this.#intercepting.delete(container.name);
    if (intercepts(spec.seccomp)) this.#intercepting.add(container.name);
  }

  async #warnOfLimits({ name }: RuntimeContainer, { limits }: RuntimeSpec): Promise<void> {
    const { cgroups } = await this.#readFeatures();
    const ignored = ignoredLimits(limits, cgroups);
    if (ignored.length > 0) this.#context.log.warn('this host cannot hold to limits', { container: name, ignored });
  }

  async start(container: RuntimeContainer, signal: AbortSignal): Promise<void> {
    const { host, containersPath } = this.#context;
    const { name, configPath } = container;
    if (this.#intercepting.has(name)) await this.#calls.serve();
    try {
      await host.run([LXC_START, '-d', '-n', name, '-P', containersPath, '-f', configPath], {
        signal,
        timeoutMs: START_LIMIT_MS,
        lasting: true,
        env: { PATH: this.#hooked.has(name) ? PATH_FOR_HOOKS : PATH_WITHOUT_SHADOW },
      });
    } catch (cause) {
      await this.#abandon(container);
      signal.throwIfAborted();
      throw await startError(host, container, cause);
    }
  }

  async checkCheckpoints(criu: string, signal: AbortSignal): Promise<void> {
    await checkCriu(this.#context.host, criu, signal);
    if (!(await this.#readFeatures()).apparmor) return;
    // It would be asked to put them under a profile called "generated".
    throw new AppError('unsupported', 'liblxc cannot restore containers under AppArmor, which this host has');
  }

  async checkpoint(container: RuntimeContainer, checkpoint: RuntimeCheckpoint & { readonly stop: boolean }) {
    await dump(this.#checkpoints(container), container, checkpoint);
  }

  hasCheckpoint(directory: string): Promise<boolean> {
    return isWhole(this.#context.host, directory);
  }

  async restore(container: RuntimeContainer, checkpoint: RuntimeCheckpoint, signal: AbortSignal): Promise<void> {
    if (this.#intercepting.has(container.name)) await this.#calls.serve();
    try {
      await restore(this.#checkpoints(container), container, checkpoint, signal);
      // It may have been held still for its dump, and is so again. Its monitor does not know, and lets go only what it holds itself.
      await this.freeze(container, signal);
      await this.unfreeze(container, signal);
    } catch (error) {
      await this.#abandon(container);
      throw error;
    }
  }

  #checkpoints(container: RuntimeContainer): CheckpointParts {
    const { host, containersPath } = this.#context;
    return { host, containersPath, sharedMounts: this.#shared.directory(container) };
  }

  /** lxc-start may have left a monitor when it was killed. */
  async #abandon(container: RuntimeContainer): Promise<void> {
    const undo = AbortSignal.timeout(KILL_LIMIT_MS);
    try {
      await this.kill(container, undo);
      await this.cleanUp(container, undo);
    } catch (error) {
      this.#context.log.warn('a failed start left something behind', { container: container.name, error });
    }
  }

  async watch(container: RuntimeContainer, signal: AbortSignal): Promise<RuntimeExit> {
    const path = this.#socket(container);
    for (;;) {
      const before = await askInitPid(path, signal);
      const exit = await awaitExit(path, signal);
      if (exit === 'stopped') return exit;
      // RUNNING is reported at the end of a start, and when a container thaws, too: only another init is a reboot.
      const after = await askInitPid(path, signal);
      if (before !== undefined && after !== before) return exit;
    }
  }

  async kill(container: RuntimeContainer, signal: AbortSignal): Promise<void> {
    const path = this.#socket(container);
    const limit = limited(KILL_LIMIT_MS, signal);
    for (;;) {
      const gone = awaitExit(path, limit);
      // It may settle before it is awaited below.
      gone.catch(() => undefined);
      await sendStop(path, limit);
      // A container that rebooted just then is another one, to be killed as well.
      if ((await gone) === 'stopped') return;
    }
  }

  async requestShutdown(container: RuntimeContainer, signal: AbortSignal): Promise<void> {
    const pid = await this.initPid(container, signal);
    if (pid === undefined) return;
    sendSignal(pid, await haltSignal(this.#context.host, pid));
  }

  async requestReboot(container: RuntimeContainer, signal: AbortSignal): Promise<void> {
    const pid = await this.initPid(container, signal);
    if (pid !== undefined) sendSignal(pid, 'SIGINT');
  }

  async freeze(container: RuntimeContainer, signal: AbortSignal): Promise<void> {
    await this.#tool('lxc-freeze', container, signal);
  }

  async unfreeze(container: RuntimeContainer, signal: AbortSignal): Promise<void> {
    await this.#tool('lxc-unfreeze', container, signal);
  }

  async #tool(tool: string, { name, configPath }: RuntimeContainer, signal: AbortSignal): Promise<void> {
    const { host, containersPath } = this.#context;
    await host.run([tool, '-n', name, '-P', containersPath, `--rcfile=${configPath}`], {
      signal,
      timeoutMs: TOOL_LIMIT_MS,
    });
  }

  async state(container: RuntimeContainer, signal: AbortSignal): Promise<RuntimeState> {
    return (await askState(this.#socket(container), signal)) ?? 'stopped';
  }

  async initPid(container: RuntimeContainer, signal: AbortSignal): Promise<number | undefined> {
    return askInitPid(this.#socket(container), signal);
  }

  async usage(initPid: number): Promise<RuntimeUsage> {
    const group = payloadGroup(readKernelFile(`/proc/${initPid}/cgroup`) ?? '');
    if (group === undefined) return {};
    return readUsage(readKernelFile, (await this.#readFeatures()).cgroups, group);
  }

  async statistics(initPid: number): Promise<RuntimeStatistics> {
    const group = payloadGroup(readKernelFile(`/proc/${initPid}/cgroup`) ?? '');
    if (group === undefined) return { memory: {}, disks: [] };
    return readStatistics(readKernelFile, (await this.#readFeatures()).cgroups, group);
  }

  async attach(container: RuntimeContainer, command: RuntimeCommand, signal: AbortSignal): Promise<RuntimeProcess> {
    const initPid = await this.initPid(container, signal);
    if (initPid === undefined) throw new AppError('invalid', 'Instance is not running');
    const { containersPath } = this.#context;
    return attachProcess(this.#attacher, { container, containersPath, initPid, command }, signal);
  }

  async openConsole(container: RuntimeContainer, signal: AbortSignal): Promise<RuntimeConsole> {
    const initPid = await this.initPid(container, signal);
    if (initPid === undefined) throw new AppError('invalid', 'Instance is not running');
    const over = new AbortController();
    const ended = this.watch(container, over.signal);
    ended.catch(() => undefined);
    try {
      const console = await openConsole({ container, initPid, ended });
      console.output.once('close', () => over.abort(new Error('the console is closed')));
      return console;
    } catch (error) {
      over.abort(error);
      throw error;
    }
  }

  async attachMount(running: RunningContainer, mount: RuntimeMount): Promise<void> {
    await this.#shared.attach(running, mount);
  }

  async adopt(container: RuntimeContainer): Promise<void> {
    await this.#shared.sweep(container);
    const config = await this.#context.host.readFile(container.configPath);
    if (config.includes(`${CALLS_KEY} = `)) await this.#calls.serve();
  }

  async detachMount(running: RunningContainer, mount: Pick<RuntimeMount, 'target' | 'options'>): Promise<void> {
    await this.#shared.detach(running, mount);
  }

  /** By liblxc: on a unified host the rules are a program in the kernel that only its monitor can change. */
  async setDeviceRule({ container }: RunningContainer, rule: string, allowed: boolean, signal: AbortSignal) {
    const { host, containersPath } = this.#context;
    const { name } = container;
    const file = allowed ? 'devices.allow' : 'devices.deny';
    await host.run(['lxc-cgroup', '-n', name, '-P', containersPath, file, rule], { signal, timeoutMs: TOOL_LIMIT_MS });
  }

  async setLimits(initPid: number, before: RuntimeLimits, after: RuntimeLimits): Promise<void> {
    const { host, log } = this.#context;
    const cgroups = await layoutFor(host, (await this.#readFeatures()).cgroups, after, before);
    const group = payloadGroup(readKernelFile(`/proc/${initPid}/cgroup`) ?? '');
    if (group === undefined) throw new AppError('unavailable', `Process ${initPid} is in no container's control group`);
    const known = ignoredLimits(before, cgroups);
    const ignored = ignoredLimits(after, cgroups).filter((limit) => !known.includes(limit));
    if (ignored.length > 0) log.warn('this host cannot hold to limits', { container: group, ignored });
    const write = async ({ controller, file, value }: CgroupSetting): Promise<void> => {
      const mount = cgroups.controllers.get(controller);
      if (mount !== undefined) await host.writeFile(`${mount}/${group}/${file}`, value);
    };
    await applyLimits(write, cgroups, { before, after });
  }

  async cleanUp(container: RuntimeContainer, signal: AbortSignal): Promise<void> {
    const { host } = this.#context;
    const { name } = container;
    await this.#shared.remove(container);
    const { cgroups } = await this.#readFeatures();
    const groups = cgroups.mountPoints.flatMap((mount) => [
      `${mount}/lxc.payload.${name}`,
      `${mount}/lxc.monitor.${name}`,
    ]);
    const left: string[] = [];
    for (const group of groups) if (await host.exists(group)) left.push(group);
    if (left.length === 0) return;
    // Directories of a cgroup tree are removed from the leaves up; their files are no files.
    await host.run(['find', ...left, '-depth', '-type', 'd', '-delete'], { signal, timeoutMs: TOOL_LIMIT_MS });
  }

  #socket(container: RuntimeContainer): string {
    return commandSocketPath(this.#context.containersPath, container.name);
  }

  #readFeatures(): Promise<HostFeatures> {
    this.#features ??= readHostFeatures(this.#context.host).catch((error: unknown) => {
      this.#features = undefined;
      throw error;
    });
    return this.#features;
  }
}

export const lxc: RuntimeModule = { name: 'lxc', create: (context) => new LxcRuntime(context) };
