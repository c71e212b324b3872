// Files as block devices: the kernel's loop devices, found by the file behind them.
import { AppError } from '#src/lib/errors.ts';
import { sleep } from '#src/lib/wait.ts';
import { CommandError } from './command-error.ts';
import type { Host } from './host.ts';

interface Listed {
  readonly loopdevices?: readonly { readonly name: string; readonly 'back-file': string | null }[];
}

/** How long the kernel may take to let go of a device after its last user. */
const RELEASE_LIMIT_MS = 3000;
const RELEASE_POLL_MS = 100;

export class LoopDevices {
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  /** The device of a file; the one that it has, or a new one. */
  async attach(file: string, signal: AbortSignal, { readOnly = false } = {}): Promise<string> {
    const mode = readOnly ? (['--read-only'] as const) : [];
    const argv = ['losetup', '--nooverlap', ...mode, '--find', '--show', '--', file] as const;
    return (await this.#host.run(argv, { signal })).stdout.trim();
  }

  /** None is success. */
  async detach(file: string, signal: AbortSignal): Promise<void> {
    for (const device of await this.of(file, signal)) {
      await this.#host.run(['losetup', '--detach', device], { signal }).catch(async (error: unknown) => {
        // the kernel was faster: it lets go by itself of what was detached while it was in use
        if (!(error instanceof CommandError) || (await this.of(file, signal)).includes(device)) throw error;
      });
    }
    for (let waitedMs = 0; (await this.of(file, signal)).length > 0; waitedMs += RELEASE_POLL_MS) {
      if (waitedMs >= RELEASE_LIMIT_MS) throw new AppError('conflict', `the block device of ${file} is still in use`);
      await sleep(RELEASE_POLL_MS, signal);
    }
  }

  /** The file has grown. */
  async grow(file: string, signal: AbortSignal): Promise<void> {
    const devices = await this.of(file, signal);
    if (devices.length === 0) throw new AppError('not_found', `${file} is no block device of this host`);
    for (const device of devices) await this.#host.run(['losetup', '--set-capacity', device], { signal });
  }

  async of(file: string, signal: AbortSignal): Promise<readonly string[]> {
    const { stdout } = await this.#host.run(['losetup', '--list', '--json', '--output', 'NAME,BACK-FILE'], { signal });
    if (stdout.trim() === '') return [];
    const { loopdevices = [] } = JSON.parse(stdout) as Listed;
    // a file that is gone from its folder is still the one behind the device
    const names = [file, `${file} (deleted)`];
    return loopdevices.filter((one) => names.includes(one['back-file'] ?? '')).map(({ name }) => name);
  }
}
