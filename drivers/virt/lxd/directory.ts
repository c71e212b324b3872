// Which instance of the engine is which of Nova's: a cached index that is verified on every use.
import type { EngineClient } from '#src/client/client.ts';
import type { Instance } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import { novaUuid, rescuedName, rescueName } from './marks.ts';

export class Directory {
  readonly #client: EngineClient;
  #names = new Map<string, string>();

  constructor(client: EngineClient) {
    this.#client = client;
  }

  /** All that carry Nova's marks; of a rescued instance the guest that stands for it. */
  async list(signal?: AbortSignal): Promise<readonly (readonly [uuid: string, instance: Instance])[]> {
    const all = await this.#client.instances.list(signal ? { signal } : {});
    const ours = all.flatMap((instance) => {
      const uuid = novaUuid(instance);
      return uuid === undefined ? [] : [[uuid, instance] as const];
    });
    const rescued = new Set(ours.flatMap(([, instance]) => rescuedName(instance) ?? []));
    const standing = ours.filter(([, { name }]) => !rescued.has(name));
    this.#names = new Map(standing.map(([uuid, { name }]) => [uuid, name]));
    return standing;
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

  /** The instance's own guest, also when another one stands for it. */
  async own(uuid: string, signal?: AbortSignal): Promise<Instance> {
    const standing = await this.get(uuid, signal);
    const name = rescuedName(standing);
    return name === undefined ? standing : await this.#client.instances.get(name, signal);
  }

  /** Nova's uuid of the instance that this guest stands for; undefined when it is absent, not Nova's, or rescued. */
  async uuidOf(name: string, signal?: AbortSignal): Promise<string | undefined> {
    for (const [uuid, known] of this.#names) if (known === name) return uuid;
    const instance = await this.#client.instances.find(name, signal);
    const uuid = instance && novaUuid(instance);
    if (uuid === undefined) return undefined;
    if (this.#names.get(uuid) === rescueName(uuid)) return undefined;
    this.#names.set(uuid, name);
    return uuid;
  }

  /** Whether it was there when last looked at; asks nobody. */
  knows(uuid: string): boolean {
    return this.#names.has(uuid);
  }

  /** Of the guest that stands for the instance, when it was last looked at; asks nobody. */
  nameOf(uuid: string): string | undefined {
    return this.#names.get(uuid);
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
