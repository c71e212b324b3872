// Images: readonly subvolumes images/FINGERPRINT. Instances are snapshots of them and need them no more.
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { Host } from '#src/host/host.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { StorageContext, Unpack } from '../driver.ts';
import { writeRecord } from '../common/volume-record.ts';
import type { Places } from './places.ts';
import { INSTANCE_MODE } from './volumes.ts';

export class Images {
  readonly #context: StorageContext;
  readonly #host: Host;
  readonly #places: Places;

  constructor(context: StorageContext, places: Places) {
    this.#context = context;
    this.#host = context.host;
    this.#places = places;
  }

  /** Unpacked for `owners`. The snapshot of what was unpacked publishes it: the kernel writes the files out before. */
  async create(fingerprint: string, unpack: Unpack, owners: IdMapRange | null): Promise<void> {
    const path = this.#places.image(fingerprint);
    if (await this.#host.exists(path)) {
      throw new AppError('conflict', `image ${fingerprint} exists in pool ${this.#context.pool}`);
    }
    await using cleanup = new Reverter(this.#context.log); // never committed: the snapshot is all that stays
    const work = this.#places.beside(path);
    cleanup.add(`unpacked image ${fingerprint}`, () => this.#host.btrfs.remove(work));
    await this.#host.btrfs.create(work);
    await this.#host.setMode(work, 0o711);
    await unpack(work, owners);
    if (!(await this.#host.exists(join(work, 'rootfs')))) {
      throw new AppError('invalid', `image ${fingerprint} has no rootfs`);
    }
    await writeRecord(this.#host, work, { image: fingerprint, owners });
    await this.#host.setMode(work, INSTANCE_MODE);
    await this.#host.btrfs.snapshot(work, path, { readonly: true });
  }

  has(fingerprint: string): Promise<boolean> {
    return this.#host.exists(this.#places.image(fingerprint));
  }

  delete(fingerprint: string): Promise<void> {
    return this.#places.remove(this.#places.image(fingerprint));
  }

  list(): Promise<readonly string[]> {
    return this.#places.list(this.#places.images);
  }
}
