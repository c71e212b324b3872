// Calls of the engine that are more than one request: states that settle, deletion of what may be running or half made.
import type { EngineClient } from '#src/client/client.ts';
import { isEnded } from '#src/client/operations.ts';
import { type Instance, STATUS, type InstanceStatePut } from '#src/client/wire.ts';
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import { sleep } from '#src/lib/wait.ts';
import { ephemeralDisks, removeDisks } from './ephemeral-disks.ts';
import { novaUuid } from './marks.ts';

const ATTEMPTS = 12;
const FIRST_PAUSE_MS = 50;
const MAX_PAUSE_MS = 4000;

export class EngineCalls {
  readonly #client: EngineClient;
  /** Instances of failed spawns that the engine could not be told to remove: uuid → name. */
  readonly #owed = new Map<string, string>();

  constructor(client: EngineClient) {
    this.#client = client;
  }

  /** Changes the state; that it is so already is success. */
  async setState(name: string, state: InstanceStatePut, signal: AbortSignal): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        await (await this.#client.instances.setState(name, state, { signal })).wait(signal);
        return;
      } catch (error) {
        if (isAlready(error, state)) return;
        if (!isBusy(error) || attempt === ATTEMPTS) throw error;
        await this.#waitWhileBusy(name, attempt, signal);
      }
    }
  }

  /**
   * Stops by force and deletes the instance with this name, and its ephemeral disks, if it is Nova's `uuid`. Absent is success; so
   * is one of somebody else, which stays.
   */
  async remove(name: string, uuid: string, signal: AbortSignal): Promise<void> {
    const instance = await this.#client.instances.find(name, signal);
    if (!instance || novaUuid(instance) !== uuid) return;
    await this.#removeInstance(name, uuid, signal);
    await removeDisks(this.#client, ephemeralDisks(instance.devices, uuid), signal);
  }

  async #removeInstance(name: string, uuid: string, signal: AbortSignal): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      const instance = await this.#client.instances.find(name, signal);
      if (!instance || novaUuid(instance) !== uuid) return;
      try {
        await this.#stopAndDelete(instance, signal);
        return;
      } catch (error) {
        if (kindOf(error) === 'not_found') return;
        if (kindOf(error) !== 'conflict' || attempt === ATTEMPTS) throw error;
        await this.#waitWhileBusy(name, attempt, signal);
      }
    }
  }

  /** Removes what a failed spawn made; when the engine does not answer, as soon as it is back. */
  async undoSpawn(name: string, uuid: string, signal: AbortSignal): Promise<void> {
    this.#owed.set(uuid, name);
    await this.remove(name, uuid, signal);
    this.#owed.delete(uuid);
  }

  /** The instance is being made anew: what was left of an earlier try is not to be removed behind its back. */
  forgive(uuid: string): void {
    this.#owed.delete(uuid);
  }

  /** What a failed spawn of this instance left, if it did. */
  async removeOwedOf(uuid: string, signal: AbortSignal): Promise<void> {
    const name = this.#owed.get(uuid);
    if (name !== undefined) await this.undoSpawn(name, uuid, signal);
  }

  /** The engine is back. What cannot be removed now stays owed, does not keep the others, and is told of in the end. */
  async removeOwed(signal: AbortSignal): Promise<void> {
    const failures: unknown[] = [];
    for (const [uuid, name] of this.#owed) {
      await this.undoSpawn(name, uuid, signal).catch((error: unknown) => failures.push(error));
    }
    if (failures.length === 0) return;
    const what = failures.map(messageOf).join('; ');
    throw new AppError('unavailable', `what failed spawns left could not be removed: ${what}`, { cause: failures[0] });
  }

  /** LXD cleans up after a container that ended by itself without an operation that could be waited for: hence the pause. */
  async #waitWhileBusy(name: string, attempt: number, signal: AbortSignal): Promise<void> {
    await this.settle(name, signal);
    await sleep(Math.min(FIRST_PAUSE_MS * 2 ** (attempt - 1), MAX_PAUSE_MS), signal);
  }

  async #stopAndDelete({ name, status_code }: Instance, signal: AbortSignal): Promise<void> {
    if (status_code !== STATUS.stopped) {
      await this.setState(name, { action: 'stop', force: true, timeout: -1 }, signal);
    }
    await (await this.#client.instances.remove(name, { signal })).wait(signal);
  }

  /** Waits for the operations that run on an instance, whoever started them and however they end. */
  async settle(name: string, signal: AbortSignal): Promise<void> {
    const path = `/1.0/instances/${encodeURIComponent(name)}`;
    const operations = await this.#client.operations.list(signal);
    for (const operation of operations) {
      const touches = (operation.resources?.['instances'] ?? []).some((url) => url.split('?')[0] === path);
      if (!touches || isEnded(operation) || operation.class !== 'task') continue;
      await this.#client.operations.wait(operation.id, signal).catch(() => signal.throwIfAborted());
    }
  }
}

function isAlready(error: unknown, { action }: InstanceStatePut): boolean {
  // What LXD says when the container ends by itself while it is being stopped.
  if (action === 'stop' && /container is not running/i.test(messageOf(error))) return true;
  if (kindOf(error) !== 'conflict') return false;
  const state = { start: 'running', stop: 'stopped', freeze: 'frozen', unfreeze: 'running', restart: '-' }[action];
  return new RegExp(`already ${state}`, 'i').test(messageOf(error));
}

function isBusy(error: unknown): boolean {
  return kindOf(error) === 'conflict' && /busy/i.test(messageOf(error));
}

/** A condition of the instance that makes a request impossible now. */
export function stateConflict(uuid: string, what: string): AppError {
  return new AppError('conflict', `instance ${uuid} ${what}`);
}
