// type=tpm: a TPM 2.0 of the instance's own. swtpm is it, and the kernel shows it as a TPM of the host (tpm_vtpm_proxy).
import { join } from 'node:path';
import { readKernelFile } from '#src/host/kernel-files.ts';
import { isStillThere, processLife, type ProcessLife } from '#src/host/process-life.ts';
import { sendSignal } from '#src/host/signal.ts';
import { AppError, kindOf } from '#src/lib/errors.ts';
import { limited, sleep } from '#src/lib/wait.ts';
import { attribute, numbersOf } from '../common/hardware.ts';
import { madeNodes, makeNodes, type Node, removeNodes } from '../common/nodes.ts';
import { checkOptions, insidePath, textOf } from '../common/options.ts';
import { DevicePlaces } from '../common/places.ts';
import type { Device, DeviceContext, DeviceDriver, DeviceModule, StartedDevice, Watched } from '../driver.ts';

type Config = Readonly<Record<string, string>>;

const MODULE = 'tpm_vtpm_proxy';
const CONTROL = '/dev/vtpmx';
const PRIVATE = 0o700;
/** The kernel asks a new TPM some questions before it shows it. */
const APPEAR_MS = 20_000;
const BEGIN_MS = 20_000;
const END_MS = 5000;
const POLL_MS = 20;
const CHECKS = { path: insidePath, pathrm: insidePath };
const STATE = 'tpm.';

class TpmDevice implements DeviceDriver {
  readonly info = { type: 'tpm', liveOptions: [] };
  readonly #context: DeviceContext;
  readonly #places: DevicePlaces;

  constructor(context: DeviceContext) {
    this.#context = context;
    this.#places = new DevicePlaces(context);
  }

  validate(config: Config): void {
    checkOptions(config, CHECKS);
    if (textOf(config, 'path') === '')
      throw new AppError('invalid', 'A tpm device needs "path", where it is in the instance');
  }

  async start(device: Device, signal: AbortSignal): Promise<StartedDevice> {
    const { host } = this.#context;
    const state = this.#state(device);
    // one that a killed daemon has just started
    await this.#end(state);
    await this.#loadModule(signal);
    const number = await this.#begin(state);
    signal.throwIfAborted();
    const names = { path: `tpm/tpm${number}`, pathrm: `tpmrm/tpmrm${number}` };
    const nodes: Node[] = [];
    for (const [option, name] of Object.entries(names)) {
      const path = textOf(device.config, option);
      if (path !== '') nodes.push({ kind: 'char', ...(await this.#appeared(name, limited(APPEAR_MS, signal))), path });
    }
    return makeNodes({ host, places: this.#places }, device, nodes);
  }

  started(device: Device): Promise<StartedDevice> {
    return madeNodes(this.#places, device);
  }

  watched(device: Device): Watched {
    return { directories: [], hardware: false, hasEnded: () => this.isStale(device) };
  }

  async isStale(device: Device): Promise<boolean> {
    return serverOf(this.#state(device)) === undefined;
  }

  async stop(device: Device): Promise<void> {
    await removeNodes(this.#places, device);
    await this.#end(this.#state(device));
  }

  async sweep(hostName: string): Promise<void> {
    const home = join(this.#context.homesPath, hostName);
    for (const name of await this.#context.host.list(home)) {
      if (name.startsWith(STATE)) await this.#end(join(home, name));
    }
  }

  async #loadModule(signal: AbortSignal): Promise<void> {
    const { host } = this.#context;
    if (await host.exists(CONTROL)) return;
    await host.run(['modprobe', '-b', MODULE], { signal }).catch((cause: unknown) => {
      throw new AppError('unsupported', `Failed to load kernel module "${MODULE}"`, { cause });
    });
  }

  /** Resolves with the N of tpmN. Not to be cut off: what it leaves in the background could not be found then. */
  async #begin(state: string): Promise<number> {
    const { host } = this.#context;
    await host.makeDirectory(state, { mode: PRIVATE });
    const files = ['--tpmstate', `dir=${state}`, '--pid', `file=${pidFile(state)}`];
    const argv = ['swtpm', 'chardev', '--tpm2', '--vtpm-proxy', ...files, '--daemon'] as const;
    // it goes on when the daemon does not, as the container does
    const { stdout } = await host.run(argv, { timeoutMs: BEGIN_MS, lasting: true }).catch((cause: unknown) => {
      if (kindOf(cause) !== 'unavailable') throw cause;
      throw new AppError('unsupported', 'A tpm device needs swtpm, which this server has not', { cause });
    });
    const number = /\/dev\/tpm(?<number>\d+)\b/.exec(stdout)?.groups?.['number'];
    if (number === undefined) throw new AppError('internal', 'swtpm does not say which device it made');
    return Number(number);
  }

  async #appeared(name: string, signal: AbortSignal): Promise<{ readonly major: number; readonly minor: number }> {
    for (;;) {
      const numbers = numbersOf(await attribute(join(this.#context.sysfs ?? '/sys', 'class', name), 'dev'));
      if (numbers) return numbers;
      await sleep(POLL_MS, signal);
    }
  }

  /** What it knows is on its disk when this resolves. */
  async #end(state: string): Promise<void> {
    const server = serverOf(state);
    if (server) await ended(server);
    await this.#context.host.removeTree(pidFile(state));
  }

  /** With the instance, so that keys are there again when it is started again. */
  #state({ owner, device }: Device): string {
    return join(this.#context.homesPath, owner.hostName, `${STATE}${encodeURIComponent(device)}`);
  }
}

async function ended(server: ProcessLife): Promise<void> {
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    sendSignal(server.pid, signal);
    for (let waited = 0; waited < END_MS; waited += POLL_MS) {
      if (!isStillThere(server)) return;
      await sleep(POLL_MS);
    }
  }
  throw new AppError('unavailable', `swtpm (process ${server.pid}) does not end`);
}

function pidFile(state: string): string {
  return join(state, 'swtpm.pid');
}

function serverOf(state: string): ProcessLife | undefined {
  const pid = Number(readKernelFile(pidFile(state)) ?? '');
  const life = pid > 0 ? processLife(pid) : undefined;
  // the number may have become another's since
  const argv = life && readKernelFile(`/proc/${pid}/cmdline`)?.split('\0');
  return argv?.includes(`file=${pidFile(state)}`) === true ? life : undefined;
}

export const tpm: DeviceModule = { type: 'tpm', create: (context) => new TpmDevice(context) };
