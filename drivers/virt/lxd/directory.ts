// Which instance of the engine is which of Nova's: a cached index that is verified on every use.
import type { EngineClient } from '#src/client/client.ts';
import type { Instance } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import { novaUuid } from './marks.ts';

export class Directory {
  readonly #client: EngineClient;
  #names = new Map<string, string>();

  constructor(client: EngineClient) {
    this.#client = client;
  }

  /** All instances that carry Nova's marks. */
  async list(signal?: AbortSignal): Promise<readonly (readonly [uuid: string, instance: Instance])[]> {
    const all = await this.#client.instances.list(signal ? { signal } : {});
    const ours = all.flatMap((instance) => {
      const uuid = novaUuid(instance);
      return uuid === undefined ? [] : [[uuid, instance] as const];
    });
    this.#names = new Map(ours.map(([uuid, { name }]) => [uuid, name]));
    return ours;
  }

  /** Undefined when the engine has none with this uuid. */
  async find(uuid: string, signal?: AbortSignal): Promise<Instance | undefined> {
    const known = this.#names.get(uuid);
    const instance = known === undefined ? undefined : await this.#client.instances.find(known, signal);
    if (instance && novaUuid(instance) === uuid) return instance;
    return (await this.list(signal)).find(([other]) => other === uuid)?.[1];
  }

  async get(uuid: string, signal?: AbortSignal): Promise<Instance> {
    const instance = await this.find(uuid, signal);
    if (!instance) throw new AppError('not_found', `instance ${uuid} is not on this host`);
    return instance;
  }

  /** Nova's uuid of the instance with this name; undefined when it is absent or not Nova's. */
  async uuidOf(name: string, signal?: AbortSignal): Promise<string | undefined> {
    for (const [uuid, known] of this.#names) if (known === name) return uuid;
    const instance = await this.#client.instances.find(name, signal);
    const uuid = instance && novaUuid(instance);
    if (uuid !== undefined) this.#names.set(uuid, name);
    return uuid;
  }

  /** Whether it was there when last looked at; asks nobody. */
  knows(uuid: string): boolean {
    return this.#names.has(uuid);
  }

  remember(uuid: string, name: string): void {
    this.#names.set(uuid, name);
  }

  forget(uuid: string): void {
    this.#names.delete(uuid);
  }

  /** Returns the uuid that the name had. */
  forgetName(name: string): string | undefined {
    for (const [uuid, known] of this.#names) {
      if (known !== name) continue;
      this.#names.delete(uuid);
      return uuid;
    }
    return undefined;
  }
}
