// Keeps running instances on the CPUs that limits.cpu gives them, as instances and CPUs come and go.
import type { RuntimeDriver } from '#drivers/runtime/driver.ts';
import type { Host } from '#src/host/host.ts';
import { watchProcessors } from '#src/host/uevents.ts';
import { Coalesced } from '#src/lib/coalesced.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { onNobodysBehalf } from '../events/requestor.ts';
import { balance, type CpuWish } from './cpu-balance.ts';
import type { Life, Supervisor } from './supervisor.ts';
import { parseCpuList } from './values.ts';

const ONLINE = '/sys/devices/system/cpu/online';
const PID_LIMIT_MS = 10_000;

export interface CpuBalancerParts {
  readonly host: Pick<Host, 'readFile'>;
  readonly log: Log;
  readonly runtime: RuntimeDriver;
  readonly supervisor: Supervisor;
}

export class CpuBalancer {
  readonly #parts: CpuBalancerParts;
  readonly #runs = new Coalesced(() => this.#balance());
  /** Why a container could not be given its CPUs, by the last run. */
  readonly #failures = new Map<Life, unknown>();
  #watch: { close(): void } | undefined;
  /** By the last run. */
  #hadOnline: readonly number[] | undefined;

  constructor(parts: CpuBalancerParts) {
    this.#parts = parts;
  }

  /** The CPUs that an instance which is about to start is to have; undefined: all. */
  async placeOf(wish: CpuWish): Promise<readonly number[] | undefined> {
    if (wish.limit === undefined) return undefined;
    const online = await this.#online();
    const place = balance([...this.#wishes().filter(({ id }) => id !== wish.id), wish], online).get(wish.id);
    return place?.length === online.length ? undefined : place;
  }

  /** When the instances that run are known. */
  async start(): Promise<void> {
    this.#watch = watchProcessors(() => void this.#run());
    await this.#run();
  }

  stop(): void {
    this.#watch?.close();
  }

  /** Some instance has come or gone: all who run are given their CPUs soon. What cannot be done is logged. */
  changed(): void {
    if (this.#wishes().every(({ limit }) => limit === undefined)) return;
    // an operation's end is not the end of this
    onNobodysBehalf(() => void this.#run());
  }

  /** AppError 'conflict' when the container does not take the CPUs of its new limit; it has then kept those that it had. */
  async setLimit(life: Life, limit: string | undefined): Promise<void> {
    life.cpuLimit = limit;
    await this.#runs.run();
    const cause = this.#failures.get(life);
    if (cause === undefined) return;
    throw new AppError('conflict', `The CPUs of ${life.key.name} cannot be changed: ${messageOf(cause)}`, { cause });
  }

  async #run(): Promise<void> {
    await this.#runs.run().catch((error: unknown) => {
      this.#parts.log.error('CPUs could not be spread', { error });
    });
  }

  #wishes(): readonly CpuWish[] {
    return this.#parts.supervisor.lives().map(({ id, cpuLimit }) => ({ id, limit: cpuLimit }));
  }

  async #balance(): Promise<void> {
    const online = await this.#online();
    const places = balance(this.#wishes(), online);
    const had = this.#hadOnline ?? online;
    this.#hadOnline = online;
    this.#failures.clear();
    for (const life of this.#parts.supervisor.lives()) {
      const cpus = places.get(life.id);
      const before = life.cpus ?? (life.cpuLimit === undefined ? had : []);
      if (cpus === undefined || life.gone || isSame(cpus, before)) continue;
      await this.#move(life, cpus);
    }
  }

  async #move(life: Life, cpus: readonly number[]): Promise<void> {
    const { runtime, log } = this.#parts;
    try {
      const pid = life.pid ?? (await runtime.initPid(life.container, AbortSignal.timeout(PID_LIMIT_MS)));
      if (pid === undefined) return;
      await runtime.setLimits(pid, { cpuSet: life.cpus?.join(',') ?? '' }, { cpuSet: cpus.join(',') });
      life.cpus = cpus;
    } catch (error) {
      if (life.gone) return;
      this.#failures.set(life, error);
      log.warn('a container does not take its CPUs', { instance: life.key.name, cpus, error: messageOf(error) });
    }
  }

  async #online(): Promise<readonly number[]> {
    return parseCpuList((await this.#parts.host.readFile(ONLINE)).trim());
  }
}

function isSame(left: readonly number[], right: readonly number[]): boolean {
  return left.length === right.length && left.every((cpu, index) => cpu === right[index]);
}
