// Our own part of the lab: the engine and the compute.
import { mkdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { get } from 'node:http';
import { fileURLToPath } from 'node:url';
import { run } from './commands.ts';
import { mounts } from './first-server.ts';
import type { Processes } from './processes.ts';
import type { LabPaths } from './settings.ts';

const bin = (name: string) => fileURLToPath(new URL(`../../../bin/${name}`, import.meta.url));

/** Whether the engine answers on its socket. */
export async function engineAnswers(socketPath: string): Promise<boolean> {
  return await new Promise((resolve) => {
    get({ socketPath, path: '/1.0', timeout: 5000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    }).on('error', () => resolve(false));
  });
}

export async function startEngine(paths: LabPaths, processes: Processes): Promise<void> {
  processes.start({ name: 'lighterd', argv: [bin('lighterd')], env: { LIGHTER_DIR: paths.lighter } });
  await processes.waitFor('lighterd', () => engineAnswers(join(paths.lighter, 'unix.socket')));
}

/** `extra` are further configuration files; what they say wins. */
export function startCompute(paths: LabPaths, processes: Processes, extra: readonly string[] = []): void {
  const files = [paths.computeConf, ...extra].flatMap((file) => ['--config-file', file]);
  processes.start({ name: 'nova-compute-lxd', argv: [bin('nova-compute-lxd'), ...files] });
}

/** Writes nova.conf options that come after the lab's own. */
export function overrideFile(paths: LabPaths, name: string, text: string): string {
  const file = join(paths.etc, 'nova', `${name}.conf`);
  writeFileSync(file, text, { mode: 0o600 });
  return file;
}

/** A second host on this machine: an engine and a compute of its own, the engine's data on a file system of `gibibytes`. */
export class SecondNode implements AsyncDisposable {
  readonly host: string;
  readonly #paths: LabPaths;
  readonly #processes: Processes;
  readonly #directory: string;

  constructor(paths: LabPaths, processes: Processes, host: string) {
    this.host = host;
    this.#paths = paths;
    this.#processes = processes;
    this.#directory = join(paths.state, `lighter-${host}`);
  }

  async start(gibibytes: number): Promise<void> {
    const disk = `${this.#directory}.img`;
    mkdirSync(this.#directory, { recursive: true });
    await run(['truncate', '-s', `${gibibytes}G`, disk]);
    await run(['mkfs.ext4', '-q', '-F', '-m', '0', '-O', '^has_journal', disk]);
    await run(['mount', '-o', 'loop', disk, this.#directory]);
    const engine = `lighterd-${this.host}`;
    this.#processes.start({ name: engine, argv: [bin('lighterd')], env: { LIGHTER_DIR: this.#directory } });
    await this.#processes.waitFor(engine, () => engineAnswers(join(this.#directory, 'unix.socket')));
    const override = overrideFile(
      this.#paths,
      this.host,
      `[DEFAULT]
host = ${this.host}
state_path = ${join(this.#paths.data, `compute-${this.host}`)}
reserved_host_memory_mb = 0
[lxd]
endpoint = unix://${join(this.#directory, 'unix.socket')}
`,
    );
    mkdirSync(join(this.#paths.data, `compute-${this.host}`), { recursive: true });
    this.#processes.start({
      name: `compute-${this.host}`,
      argv: [bin('nova-compute-lxd'), '--config-file', this.#paths.computeConf, '--config-file', override],
    });
  }

  /** Leaves no byte free in the engine's file system. */
  async fillDisk(): Promise<void> {
    const { bavail, bsize } = statfsSync(this.#directory);
    // most of it without writing, the rest to the last block
    await run(['fallocate', '-l', String((bavail - 1024) * bsize), join(this.#directory, 'filler')]);
    await run(['dd', 'if=/dev/zero', `of=${join(this.#directory, 'rest')}`, 'bs=4k']).catch((error: unknown) => {
      if (!String(error).includes('No space left')) throw error;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#processes.stop(`compute-${this.host}`);
    await this.#processes.stop(`lighterd-${this.host}`);
    const inside = mounts().filter((path) => path.startsWith(`${this.#directory}/`));
    for (const path of inside.toReversed()) await run(['umount', path]);
    await run(['umount', this.#directory]);
    for (const path of [`${this.#directory}.img`, this.#directory, join(this.#paths.data, `compute-${this.host}`)]) {
      rmSync(path, { recursive: true, force: true });
    }
  }
}
