// Power of one instance: on with the interfaces that Nova plugged, off with grace, restart through init.
import type { EngineClient } from '#src/client/client.ts';
import { type Instance, STATUS } from '#src/client/wire.ts';
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { POWER_STATE, type PowerState, type SpawnNic } from '../driver.ts';
import type { Directory } from './directory.ts';
import { type EngineCalls, stateConflict } from './engine-calls.ts';
import { within } from './limit.ts';
import { replaceNics } from './nics.ts';
import type { LxdDriverOptions } from './options.ts';
import { powerStateOf } from './power-state.ts';

const REBOOT_GRACE_SECONDS = 60;

export interface PowerContext {
  readonly client: EngineClient;
  readonly directory: Directory;
  readonly calls: EngineCalls;
  readonly log: Log;
  readonly options: Pick<LxdDriverOptions, 'spawnTimeoutMs' | 'allowSuspendToDisk'>;
}

export class Power {
  readonly #context: PowerContext;

  constructor(context: PowerContext) {
    this.#context = context;
  }

  /** `stateful`: with the memory that the engine keeps of it, if any. */
  async on(
    uuid: string,
    nics: readonly SpawnNic[],
    signal: AbortSignal,
    { stateful }: { readonly stateful: boolean } = { stateful: false },
  ): Promise<void> {
    const { directory, calls, options } = this.#context;
    const instance = await directory.get(uuid, signal);
    if (powerStateOf(instance.status_code) === POWER_STATE.running) return;
    await within(`start of instance ${uuid}`, options.spawnTimeoutMs, signal, async (limit) => {
      if (powerStateOf(instance.status_code) === POWER_STATE.paused) {
        return calls.setState(instance.name, { action: 'unfreeze' }, limit);
      }
      await replaceNics(this.#context.client, instance.name, nics, limit);
      await calls.setState(
        instance.name,
        { action: 'start', timeout: -1, stateful: stateful && instance.stateful },
        limit,
      );
    });
  }

  /** The engine moves interfaces of the host into the guest, and no engine can put those into a restored one. */
  async suspendToDisk(uuid: string, signal: AbortSignal): Promise<void> {
    const { directory, calls, options } = this.#context;
    const instance = await directory.get(uuid, signal);
    const { name, status_code, stateful, expanded_devices: devices = instance.devices } = instance;
    if (powerStateOf(status_code) === POWER_STATE.shutdown && stateful) return;
    if (status_code !== STATUS.running) throw stateConflict(uuid, 'does not run');
    if (!options.allowSuspendToDisk)
      throw new AppError('unsupported', 'memory is not kept here: [lxd] allow_suspend_to_disk is off');
    if (Object.values(devices).some(({ type }) => type === 'nic'))
      throw new AppError('unsupported', 'the memory of a guest with network interfaces cannot be kept');
    await within(`suspension of instance ${uuid}`, options.spawnTimeoutMs, signal, (limit) =>
      calls.setState(name, { action: 'stop', stateful: true, timeout: -1 }, limit),
    );
  }

  async off(uuid: string, graceSeconds: number, signal: AbortSignal): Promise<void> {
    const { directory, options } = this.#context;
    const instance = await directory.get(uuid, signal);
    if (powerStateOf(instance.status_code) === POWER_STATE.shutdown) return;
    const limitMs = graceSeconds * 1000 + options.spawnTimeoutMs;
    await within(`stop of instance ${uuid}`, limitMs, signal, async (limit) => {
      if (graceSeconds > 0 && (await this.#shutDown(uuid, instance, graceSeconds, limit))) return;
      await this.#context.calls.setState(instance.name, { action: 'stop', force: true, timeout: -1 }, limit);
    });
  }

  /** False when init did not end in time, or cannot be asked. */
  async #shutDown(uuid: string, { name }: Instance, timeout: number, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#context.calls.setState(name, { action: 'stop', timeout }, signal);
      return true;
    } catch (error) {
      if (signal.aborted || ['unavailable', 'not_found'].includes(kindOf(error))) throw error;
      this.#context.log.info('instance did not shut down by itself', { instance: uuid, reason: messageOf(error) });
      return false;
    }
  }

  async softReboot(uuid: string, signal: AbortSignal): Promise<void> {
    const { directory, calls, options } = this.#context;
    const { name, status_code } = await directory.get(uuid, signal);
    if (status_code !== STATUS.running) throw stateConflict(uuid, 'does not run');
    const limitMs = REBOOT_GRACE_SECONDS * 1000 + options.spawnTimeoutMs;
    await within(`reboot of instance ${uuid}`, limitMs, signal, async (limit) => {
      try {
        await calls.setState(name, { action: 'restart', timeout: REBOOT_GRACE_SECONDS }, limit);
      } catch (error) {
        if (limit.aborted || ['unavailable', 'not_found'].includes(kindOf(error))) throw error;
        throw new AppError('conflict', `instance ${uuid} did not reboot: ${messageOf(error)}`, { cause: error });
      }
    });
  }

  async pause(uuid: string, signal: AbortSignal): Promise<void> {
    await this.#freezer(uuid, { action: 'freeze', already: POWER_STATE.paused }, signal);
  }

  async unpause(uuid: string, signal: AbortSignal): Promise<void> {
    await this.#freezer(uuid, { action: 'unfreeze', already: POWER_STATE.running }, signal);
  }

  async #freezer(
    uuid: string,
    { action, already }: { readonly action: 'freeze' | 'unfreeze'; readonly already: PowerState },
    signal: AbortSignal,
  ): Promise<void> {
    const { directory, calls, options } = this.#context;
    const { name, status_code: status } = await directory.get(uuid, signal);
    const state = powerStateOf(status);
    if (state === already) return;
    if (state !== POWER_STATE.running && state !== POWER_STATE.paused) throw stateConflict(uuid, 'does not run');
    await within(`${action} of instance ${uuid}`, options.spawnTimeoutMs, signal, (limit) =>
      calls.setState(name, { action }, limit),
    );
  }
}
