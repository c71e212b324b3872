// Images on zfs: images/FINGERPRINT with its snapshot @readonly; deleted ones that have clones stay, marked, until the last is gone.
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { AppError, kindOf } from '#src/lib/errors.ts';
import type { Argv } from '#src/host/host.ts';
import { type IdMapRange, idMapKey } from '#src/host/id-map.ts';
import type { Zfs } from '#src/host/zfs.ts';
import { KeyedLock } from '#src/lib/keyed-lock.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { limited } from '#src/lib/wait.ts';
import type { StorageContext, Unpack } from '../driver.ts';
import { lastName, PROPERTY, READONLY } from './names.ts';
import type { ZfsPool } from './pool.ts';

const UNDO_LIMIT_MS = 120_000;
const COPY_LIMIT_MS = 30 * 60_000;

export class ZfsImages {
  readonly #context: StorageContext;
  readonly #zfs: Zfs;
  readonly #pool: ZfsPool;
  readonly #locks = new KeyedLock();
  /** Keys of the maps that images were unpacked with; they never change. */
  readonly #owners = new Map<string, string>();

  constructor(context: StorageContext, zfs: Zfs, pool: ZfsPool) {
    this.#context = context;
    this.#zfs = zfs;
    this.#pool = pool;
  }

  create(fingerprint: string, unpack: Unpack, signal: AbortSignal): Promise<void> {
    return this.#locks.run(fingerprint, () => this.#create(fingerprint, unpack, signal), signal);
  }

  async has(fingerprint: string, signal: AbortSignal): Promise<boolean> {
    return (await this.#state(this.#pool.names.image(fingerprint), signal)) === 'ready';
  }

  async list(signal: AbortSignal): Promise<readonly string[]> {
    const query = { type: 'filesystem', properties: [PROPERTY.state] } as const;
    const datasets = await this.#zfs.listBelow(this.#pool.names.parent('images'), query, signal);
    return datasets
      .filter(({ properties }) => properties[PROPERTY.state] === 'ready')
      .map(({ name }) => lastName(name))
      .sort();
  }

  /** Key of the map of the image's owners. AppError 'not_found' without the image. */
  async owners(fingerprint: string, signal: AbortSignal): Promise<string> {
    const known = this.#owners.get(fingerprint);
    if (known !== undefined) return known;
    const { [PROPERTY.owners]: owners = '-', [PROPERTY.state]: state } = await this.#zfs.get(
      this.#pool.names.image(fingerprint),
      [PROPERTY.owners, PROPERTY.state],
      signal,
    );
    if (state !== 'ready') throw new AppError('not_found', `no image ${fingerprint} in pool ${this.#context.pool}`);
    this.#owners.set(fingerprint, owners);
    return owners;
  }

  /**
   * While clones keep it, it is only marked; collect() removes it with the last of them. LXD renames it to deleted/, but that
   * fails, and cannot be taken back, as long as any mount namespace on the host still holds the dataset.
   */
  delete(fingerprint: string, signal: AbortSignal): Promise<void> {
    return this.#locks.run(fingerprint, async () => {
      const dataset = this.#pool.names.image(fingerprint);
      this.#owners.delete(fingerprint);
      if ((await this.#state(dataset, signal)) !== 'ready') return;
      if (await this.#destroyed(dataset, signal)) return;
      await this.#zfs.set(dataset, { [PROPERTY.state]: 'deleted' }, signal);
    });
  }

  /** After the end of a clone: removes its origin when that is deleted and has no other clone. */
  async collect(origin: string | undefined, signal: AbortSignal): Promise<void> {
    const [dataset = ''] = origin?.split('@') ?? [];
    if (!dataset.startsWith(`${this.#pool.names.parent('images')}/`)) return;
    await this.#locks.run(lastName(dataset), async () => {
      if ((await this.#state(dataset, signal)) === 'deleted') await this.#destroyed(dataset, signal);
    });
  }

  /** Removes deleted images without clones, and what a crash left; for the time before anybody makes images. */
  async clean(signal: AbortSignal): Promise<void> {
    const query = { type: 'filesystem', properties: [PROPERTY.state] } as const;
    for (const { name, properties } of await this.#zfs.listBelow(this.#pool.names.parent('images'), query, signal)) {
      if (properties[PROPERTY.state] === 'deleted') await this.#destroyed(name, signal);
      if (properties[PROPERTY.state] !== '-') continue;
      await this.#discard(lastName(name), signal).catch((error: unknown) => {
        this.#context.log.warn('an image that was not finished cannot be removed yet', { dataset: name, error });
      });
    }
  }

  /** undefined: absent. '-': not complete. */
  async #state(dataset: string, signal: AbortSignal): Promise<string | undefined> {
    try {
      return (await this.#zfs.get(dataset, [PROPERTY.state], signal))[PROPERTY.state];
    } catch (error) {
      if (kindOf(error) === 'not_found') return undefined;
      throw error;
    }
  }

  /** false: clones, or somebody who looks into it, keep it. */
  async #destroyed(dataset: string, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#zfs.destroy(dataset, signal);
      return true;
    } catch (error) {
      if (kindOf(error) === 'conflict' || kindOf(error) === 'unavailable') return false;
      throw error;
    }
  }

  #path(fingerprint: string): string {
    return join(this.#context.poolPath, 'images', fingerprint);
  }

  async #create(fingerprint: string, unpack: Unpack, signal: AbortSignal): Promise<void> {
    const dataset = this.#pool.names.image(fingerprint);
    const state = await this.#state(dataset, signal);
    if (state === 'ready') throw new AppError('conflict', `image ${fingerprint} exists in pool ${this.#context.pool}`);
    if (state === 'deleted') {
      await this.#zfs.set(dataset, { [PROPERTY.state]: 'ready' }, signal); // clones kept it: it is as good as new
      return;
    }
    if (state !== undefined) await this.#discard(fingerprint, signal);
    await using revert = new Reverter(this.#context.log);

    await this.#zfs.create(dataset, { canmount: 'noauto' }, signal);
    revert.add(`image ${fingerprint}`, () => this.#discard(fingerprint, limited(UNDO_LIMIT_MS)));
    const owners = await this.#fill(fingerprint, unpack, signal);
    await this.#zfs.snapshot(`${dataset}@${READONLY}`, signal);
    await this.#zfs.set(dataset, { [PROPERTY.owners]: idMapKey(owners) }, signal);
    await this.#zfs.set(dataset, { [PROPERTY.state]: 'ready' }, signal); // this publishes it
    revert.commit();
  }

  /** Where roots can be mapped at mount time they stay unmapped; else they get the map that most instances have. */
  async #fill(fingerprint: string, unpack: Unpack, signal: AbortSignal): Promise<IdMapRange | null> {
    const { host, defaultIdMap = null } = this.#context;
    const dataset = this.#pool.names.image(fingerprint);
    const path = this.#path(fingerprint);
    const flavour = await this.#pool.flavour();
    await flavour.mount(dataset, path, signal);
    const owners = (await host.mounts.canMapIds(path)) ? null : defaultIdMap;
    const checked: Unpack = async (directory, ids) => {
      await unpack(directory, ids);
      if (!(await host.exists(join(directory, 'rootfs'))))
        throw new AppError('invalid', `image ${fingerprint} has no rootfs`);
    };
    if (flavour.servesUserNamespaces) await checked(path, owners);
    else await this.#fillByCopy(path, { unpack: checked, owners, signal });
    await flavour.unmount(dataset, path, signal);
    await host.removeTree(path); // the mount point
    return owners;
  }

  async #fillByCopy(
    path: string,
    { unpack, owners, signal }: { unpack: Unpack; owners: IdMapRange | null; signal: AbortSignal },
  ): Promise<void> {
    const { host, log } = this.#context;
    await using cleanup = new Reverter(log); // never committed: the copy is all that stays
    const staging = join(this.#pool.stagingPath, randomUUID());
    cleanup.add('unpacked image', () => host.removeTree(staging));
    await host.makeDirectory(staging, { mode: 0o711 });
    await unpack(staging, null);
    const copy: Argv = ['cp', '-a', '-T', '--', staging, path];
    await host.run(copy, { signal, timeoutMs: COPY_LIMIT_MS });
    await host.shiftOwners(join(path, 'rootfs'), { from: null, to: owners }, signal);
  }

  async #discard(fingerprint: string, signal: AbortSignal): Promise<void> {
    const dataset = this.#pool.names.image(fingerprint);
    if ((await this.#state(dataset, signal)) === undefined) return;
    await (await this.#pool.flavour()).unmount(dataset, this.#path(fingerprint), signal);
    await this.#zfs.destroy(dataset, signal);
    await this.#context.host.removeTree(this.#path(fingerprint));
  }
}
