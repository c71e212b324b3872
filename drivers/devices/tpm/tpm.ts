// type=tpm: a TPM 2.0 of the instance's own. swtpm is it, and the kernel shows it as a TPM of the host (tpm_vtpm_proxy).
import { join } from 'node:path';
import { kill } from 'node:process';
import { readKernelFile } from '#src/host/kernel-files.ts';
import { isStillThere, processLife, type ProcessLife } from '#src/host/process-life.ts';
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
const END_MS = 5000;
const POLL_MS = 20;
const CHECKS = { path: insidePath, pathrm: insidePath };

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
    // one that a killed daemon has just started
    await this.#end(device);
    await this.#loadModule(signal);
    const number = await this.#begin(device, signal);
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
    return { directories: [], hardware: false, hasEnded: async () => this.#server(device) === undefined };
  }

  async isStale(device: Device): Promise<boolean> {
    return this.#server(device) === undefined;
  }

  async stop(device: Device): Promise<void> {
    await removeNodes(this.#places, device);
    await this.#end(device);
  }

  async #loadModule(signal: AbortSignal): Promise<void> {
    const { host } = this.#context;
    if (await host.exists(CONTROL)) return;
    await host.run(['modprobe', '-b', MODULE], { signal }).catch((cause: unknown) => {
      throw new AppError('unsupported', `Failed to load kernel module "${MODULE}"`, { cause });
    });
  }

  /** Resolves with the N of tpmN. */
  async #begin(device: Device, signal: AbortSignal): Promise<number> {
    const { host } = this.#context;
    const state = this.#state(device);
    await host.makeDirectory(state, { mode: PRIVATE });
    const files = ['--tpmstate', `dir=${state}`, '--pid', `file=${this.#pidFile(device)}`];
    const argv = ['swtpm', 'chardev', '--tpm2', '--vtpm-proxy', ...files, '--daemon'] as const;
    // it goes on when the daemon does not, as the container does
    const { stdout } = await host.run(argv, { signal, lasting: true }).catch((cause: unknown) => {
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
  async #end(device: Device): Promise<void> {
    const server = this.#server(device);
    if (server) {
      for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
        if (isStillThere(server)) kill(server.pid, signal);
        for (let waited = 0; isStillThere(server) && waited < END_MS; waited += POLL_MS) await sleep(POLL_MS);
      }
    }
    await this.#context.host.removeTree(this.#pidFile(device));
  }

  #server(device: Device): ProcessLife | undefined {
    const pid = Number(readKernelFile(this.#pidFile(device)) ?? '');
    const life = pid > 0 ? processLife(pid) : undefined;
    // the number may have become another's since
    const argv = life && readKernelFile(`/proc/${pid}/cmdline`)?.split('\0');
    return argv?.includes(`file=${this.#pidFile(device)}`) === true ? life : undefined;
  }

  /** With the instance, so that keys are there again when it is started again. */
  #state({ owner, device }: Device): string {
    return join(this.#context.homesPath, owner.hostName, `tpm.${encodeURIComponent(device)}`);
  }

  #pidFile(device: Device): string {
    return join(this.#state(device), 'swtpm.pid');
  }
}

export const tpm: DeviceModule = { type: 'tpm', create: (context) => new TpmDevice(context) };
