// Images: logical volumes images_FINGERPRINT, read-only and not active. Instances are thin snapshots of them and need them no more.
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import type { Unpack } from '../driver.ts';
import { writeRecord } from '../common/volume-record.ts';
import { parseImage } from './names.ts';
import type { LvmParts } from './parts.ts';
import { defaultBytes, fileSystemOf } from './settings.ts';

/** LXD's: none but the root of the container gets through. */
export const INSTANCE_MODE = 0o100;
const UNPACKING_MODE = 0o711;

export class LvmImages {
  readonly #parts: LvmParts;
  /** Sizes by fingerprint; they never change. */
  readonly #sizes = new Map<string, number>();

  constructor(parts: LvmParts) {
    this.#parts = parts;
  }

  /** Where the kernel cannot map the owners of files, they are those that most instances have. */
  async create(fingerprint: string, unpack: Unpack, signal: AbortSignal): Promise<void> {
    const { pool, names, context } = this.#parts;
    const name = names.image(fingerprint);
    const taken = `image ${fingerprint} exists in pool ${context.pool}`;
    if (await pool.lvm.volume(pool.group, name, signal)) throw new AppError('conflict', taken);
    const { config } = context;
    const sizeBytes = await pool.rounded(defaultBytes(config), signal);
    const make = async (work: string): Promise<void> => {
      const fill = (path: string): Promise<void> => this.#fill(fingerprint, path, unpack);
      await this.#parts.make(work, { sizeBytes, type: fileSystemOf({}, config), fill }, signal);
      await pool.lvm.seal(pool.group, work, signal);
    };
    this.#sizes.delete(fingerprint);
    await this.#parts.publish(name, make, signal);
  }

  async #fill(fingerprint: string, path: string, unpack: Unpack): Promise<void> {
    const { host, defaultIdMap = null } = this.#parts.context;
    const owners: IdMapRange | null = (await host.mounts.canMapIds(path)) ? null : defaultIdMap;
    await host.setMode(path, UNPACKING_MODE);
    await unpack(path, owners);
    if (!(await host.exists(join(path, 'rootfs')))) {
      throw new AppError('invalid', `image ${fingerprint} has no rootfs`);
    }
    await writeRecord(host, path, { image: fingerprint, owners });
    await host.setMode(path, INSTANCE_MODE);
  }

  async has(fingerprint: string, signal: AbortSignal): Promise<boolean> {
    const { pool, names } = this.#parts;
    return (await pool.lvm.volume(pool.group, names.image(fingerprint), signal)) !== undefined;
  }

  async delete(fingerprint: string, signal: AbortSignal): Promise<void> {
    const { names } = this.#parts;
    const name = names.image(fingerprint);
    this.#sizes.delete(fingerprint);
    if (await this.has(fingerprint, signal)) await this.#parts.toss(name, signal);
  }

  async list(signal: AbortSignal): Promise<readonly string[]> {
    const volumes = await this.#parts.pool.volumes(signal);
    return volumes.flatMap(({ name }) => parseImage(name) ?? []).sort();
  }

  /** Of the logical volume. AppError 'not_found' without the image. */
  async sizeOf(fingerprint: string, signal: AbortSignal): Promise<number> {
    const { pool, names } = this.#parts;
    const known = this.#sizes.get(fingerprint);
    if (known !== undefined) return known;
    const found = await pool.lvm.volume(pool.group, names.image(fingerprint), signal);
    if (!found) throw this.absent(fingerprint);
    this.#sizes.set(fingerprint, found.sizeBytes);
    return found.sizeBytes;
  }

  absent(fingerprint: string, cause?: unknown): AppError {
    return new AppError('not_found', `no image ${fingerprint} in pool ${this.#parts.context.pool}`, { cause });
  }
}
