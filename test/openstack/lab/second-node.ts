// A second host on this machine: an engine, a compute and, when it is wanted, a Neutron agent of its own.
import { appendFileSync, existsSync, mkdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { EngineClient } from '#src/client/client.ts';
import type { Cloud } from './cloud.ts';
import { run } from './commands.ts';
import { startSecondAgent } from './control-plane.ts';
import { mounts, services, waitForCompute } from './first-server.ts';
import { bin, engineAnswers, overrideFile } from './node.ts';
import type { Processes } from './processes.ts';
import { type LabPaths, PORTS } from './settings.ts';

const UNMOUNT_ATTEMPTS = 25;

/** Of npm run up -- --second-host; tests have others of their own. */
export const SECOND_HOST = 'node-b';

/** Of the process, and of the folder with its state. */
export const secondComputeName = (host: string): string => `compute-${host}`;

export interface SecondNodeOptions {
  /** Size of the file system of the engine's data. */
  readonly gibibytes: number;
  /** Ports can be bound to it. */
  readonly hasAgent?: boolean;
}

export class SecondNode implements AsyncDisposable {
  readonly host: string;
  readonly engine: EngineClient;
  readonly #cloud: Cloud;
  readonly #paths: LabPaths;
  readonly #processes: Processes;
  /** Of its engine. */
  readonly directory: string;

  constructor(
    cloud: Cloud,
    { paths, processes }: { readonly paths: LabPaths; readonly processes: Processes },
    host: string,
  ) {
    this.host = host;
    this.#cloud = cloud;
    this.#paths = paths;
    this.#processes = processes;
    this.directory = join(paths.state, `lighter-${host}`);
    this.engine = new EngineClient({ endpoint: { kind: 'unix', socketPath: this.#socket } });
  }

  get computeName(): string {
    return secondComputeName(this.host);
  }

  get engineName(): string {
    return `lighterd-${this.host}`;
  }

  get #agentName(): string {
    return `agent-${this.host}`;
  }

  get #socket(): string {
    return join(this.directory, 'unix.socket');
  }

  /** Resolves when servers can be placed on it. */
  async start({ gibibytes, hasAgent = false }: SecondNodeOptions): Promise<void> {
    const disk = `${this.directory}.img`;
    mkdirSync(this.directory, { recursive: true });
    if (!existsSync(disk)) {
      await run(['truncate', '-s', `${gibibytes}G`, disk]);
      await run(['mkfs.ext4', '-q', '-F', '-m', '0', '-O', '^has_journal', disk]);
    }
    if (!mounts().includes(this.directory)) await run(['mount', '-o', 'loop', disk, this.directory]);
    if (hasAgent) this.#startAgent();
    await this.startEngine();
    this.startCompute();
    await waitForCompute(this.#cloud, this.host);
    if (hasAgent) await this.#waitForAgent();
    // as an operator does who does not wait for the scheduler to do it
    await run(['nova-manage', '--config-file', this.#paths.novaConf, 'cell_v2', 'discover_hosts']);
  }

  async startEngine(): Promise<void> {
    const name = this.engineName;
    this.#processes.start({ name, argv: [bin('lighterd')], env: { LIGHTER_DIR: this.directory } });
    await this.#processes.waitFor(name, () => engineAnswers(this.#socket));
  }

  startCompute(): void {
    const state = join(this.#paths.data, this.computeName);
    mkdirSync(state, { recursive: true });
    const override = overrideFile(
      this.#paths,
      this.host,
      `[DEFAULT]
host = ${this.host}
state_path = ${state}
reserved_host_memory_mb = 0
[lxd]
endpoint = unix://${this.#socket}
migration_address = 127.0.0.1:${PORTS.secondEngine}
`,
    );
    this.#processes.start({
      name: this.computeName,
      argv: [bin('nova-compute-lxd'), '--config-file', this.#paths.computeConf, '--config-file', override],
    });
  }

  #startAgent(): void {
    const file = join(this.#paths.etc, 'neutron', `${this.host}.ini`);
    // the first host's agent filters the ports of both: chains of the same names would be fought over
    const text = `[DEFAULT]\nhost = ${this.host}\n[securitygroup]\nfirewall_driver = noop\nenable_security_group = false\n`;
    writeFileSync(file, text, { mode: 0o600 });
    startSecondAgent(this.#paths, this.#processes, { name: this.#agentName, file });
  }

  async #waitForAgent(): Promise<void> {
    const isAlive = async () => (await this.#agents()).some(({ alive }) => alive);
    await this.#processes.waitFor(this.#agentName, isAlive);
  }

  async #agents(): Promise<readonly { readonly id: string; readonly alive: boolean }[]> {
    type Agents = { readonly agents: readonly { readonly id: string; readonly alive: boolean }[] };
    return (await this.#cloud.get<Agents>(this.#cloud.network, `/v2.0/agents?host=${this.host}`)).agents;
  }

  /** Leaves no byte free in the engine's file system. */
  async fillDisk(): Promise<void> {
    const { bavail, bsize } = statfsSync(this.directory);
    // most of it without writing, the rest to the last block
    await run(['fallocate', '-l', String((bavail - 1024) * bsize), join(this.directory, 'filler')]);
    await run(['dd', 'if=/dev/zero', `of=${join(this.directory, 'rest')}`, 'bs=4k']).catch((error: unknown) => {
      if (!String(error).includes('No space left')) throw error;
    });
  }

  /** What the host has in Nova and Neutron, as an operator would remove it. No server may be on it. */
  async forget(): Promise<void> {
    await this.#processes.stop(this.computeName);
    await this.#processes.stop(this.#agentName);
    for (const { host, binary, id } of await services(this.#cloud)) {
      if (host !== this.host || binary !== 'nova-compute') continue;
      await this.#cloud.delete(this.#cloud.compute, `/os-services/${id}`);
    }
    for (const { id } of await this.#agents()) await this.#cloud.delete(this.#cloud.network, `/v2.0/agents/${id}`);
    appendFileSync(this.#processes.logFile(this.computeName), '--- host removed\n');
  }

  /** Its data stays. */
  async stop(): Promise<void> {
    this.engine.close();
    await this.#processes.stop(this.computeName);
    await this.#processes.stop(this.#agentName);
    await this.#processes.stop(this.engineName);
    const inside = mounts().filter((path) => path.startsWith(`${this.directory}/`));
    for (const path of inside.toReversed()) await run(['umount', path]);
    await unmountSoon(this.directory);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    for (const path of [`${this.directory}.img`, this.directory, join(this.#paths.data, this.computeName)]) {
      rmSync(path, { recursive: true, force: true });
    }
  }
}

/** What a daemon that has ended started last may take a moment to be gone. */
async function unmountSoon(directory: string): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await run(['umount', directory]);
      return;
    } catch (error) {
      if (attempt === UNMOUNT_ATTEMPTS) throw error;
      await sleep(200);
    }
  }
}
