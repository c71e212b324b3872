// The lower layer of an instance: the image's tree with the instance's owners, without touching a file where the kernel can.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { Host } from '#src/host/host.ts';
import { idMapKey, type IdMapRange } from '#src/host/id-map.ts';
import { KeyedLock } from '#src/lib/keyed-lock.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { StorageContext } from '../driver.ts';
import type { PoolDirectory } from '../common/pool-directory.ts';
import { COPY_LIMIT_MS } from '../common/tree-driver.ts';

const MAX_KEY = 120;

export interface LowerLayer {
  /** Directory of the image; undefined: an instance that was made empty. */
  readonly imagePath: string | undefined;
  readonly fingerprint: string | null;
  readonly idMap: IdMapRange | null;
  /** Where a mapped view of the image may be mounted for the time of the mount. */
  readonly mountPoint: string;
}

export class LowerLayers {
  readonly #host: Host;
  readonly #context: StorageContext;
  readonly #pool: PoolDirectory;
  readonly #copies = new KeyedLock();

  constructor(context: StorageContext, pool: PoolDirectory) {
    this.#context = context;
    this.#host = context.host;
    this.#pool = pool;
  }

  /**
   * Calls `mount` with the path of the layer. overlayfs keeps a private copy of the mount that it is given, id map included, so
   * the mapped view is needed for the moment of mounting only: nothing of it stays behind to be cleaned up.
   */
  async with(layer: LowerLayer, mount: (path: string) => Promise<void>, signal: AbortSignal): Promise<void> {
    const { imagePath, idMap, mountPoint } = layer;
    if (imagePath === undefined) {
      await mount(mountPoint);
      return;
    }
    const tree = join(imagePath, 'rootfs');
    if (idMap === null) {
      await mount(tree);
      return;
    }
    if (!(await this.#host.mounts.canMapIds(tree))) {
      await mount(await this.#shiftedCopy(tree, layer, signal));
      return;
    }
    await this.#host.mounts.unmount(mountPoint); // a crash may have left one
    await this.#host.mounts.bindMapped(tree, mountPoint, idMap);
    try {
      await mount(mountPoint);
    } finally {
      await this.#host.mounts.unmount(mountPoint);
    }
  }

  /** Kernels or file systems without id-mapped mounts: one copy of the image per id map, made once. */
  async #shiftedCopy(tree: string, { fingerprint, idMap }: LowerLayer, signal: AbortSignal): Promise<string> {
    if (fingerprint === null) throw new AppError('internal', 'an image without a fingerprint');
    const path = join(this.#pool.layout.folder('shifted'), `${fingerprint}.${fileNameOf(idMap)}`);
    return await this.#copies.run(path, async () => {
      if (await this.#host.exists(path)) return path;
      await using revert = new Reverter(this.#context.log);
      const work = this.#pool.workPath('shifted');
      revert.add(`copy of image ${fingerprint}`, () => this.#pool.removeTree(work));
      await this.#host.run(['cp', '-a', '--reflink=auto', '-T', '--', tree, work], {
        signal,
        timeoutMs: COPY_LIMIT_MS,
      });
      await this.#host.shiftOwners(work, { from: null, to: idMap }, signal);
      await this.#host.run(['sync', '-f', work], { signal, timeoutMs: COPY_LIMIT_MS });
      await this.#host.rename(work, path);
      revert.commit();
      return path;
    });
  }
}

/** Names of files have an end, maps of many ranges have not. */
function fileNameOf(idMap: IdMapRange | null): string {
  const key = idMapKey(idMap);
  return key.length <= MAX_KEY ? key : createHash('sha256').update(key).digest('hex');
}
