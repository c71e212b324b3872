// Size limits of instances on plain file systems: one project number per instance, where the file system has project quotas.
import { randomInt } from 'node:crypto';
import { AppError } from '#src/lib/errors.ts';
import type { StorageContext } from '../driver.ts';

/** Above what administrators number by hand. */
const FIRST_ID = 0x1000_0000;
const LAST_ID = 0x7fff_ffff;
const TRIES = 16;

export class InstanceQuotas {
  readonly #context: StorageContext;
  #enabled = false;

  constructor(context: StorageContext) {
    this.#context = context;
  }

  /** Known after probe(). */
  get enabled(): boolean {
    return this.#enabled;
  }

  async probe(): Promise<void> {
    this.#enabled = await this.#context.host.projectQuotas.enabled(this.#context.poolPath);
  }

  /** A project that nobody uses, for these directories. */
  async claim(name: string, directories: readonly string[]): Promise<number> {
    const { projectQuotas } = this.#context.host;
    for (let tried = 0; tried < TRIES; tried++) {
      const id = randomInt(FIRST_ID, LAST_ID);
      if ((await projectQuotas.used(this.#context.poolPath, id)) > 0) continue;
      for (const directory of directories) await projectQuotas.assign(directory, id);
      return id;
    }
    throw new AppError('internal', `no free project id for ${name} in pool ${this.#context.pool}`);
  }

  adopt(projectId: number, directory: string): Promise<void> {
    return this.#context.host.projectQuotas.assign(directory, projectId);
  }

  limit(projectId: number, sizeBytes: number | undefined): Promise<void> {
    return this.#context.host.projectQuotas.limit(this.#context.poolPath, projectId, sizeBytes);
  }

  used(projectId: number): Promise<number> {
    return this.#context.host.projectQuotas.used(this.#context.poolPath, projectId);
  }

  async release(projectId: number): Promise<void> {
    if (this.#enabled) await this.limit(projectId, undefined);
  }
}
