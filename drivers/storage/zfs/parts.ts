// What the parts of the driver share.
import { join } from 'node:path';
import { AppError, kindOf } from '#src/lib/errors.ts';
import { Zfs, type ZfsProperties } from '#src/host/zfs.ts';
import type { StorageContext, VolumeRef } from '../driver.ts';
import { ZfsGhosts } from './ghosts.ts';
import { ZfsImages } from './images.ts';
import { PARENT_OF, PROPERTY } from './names.ts';
import { type Mountable, OwnersOnDisk } from './owners-on-disk.ts';
import { ZfsPool } from './pool.ts';
import { VolumeSettings } from './settings.ts';

export class ZfsParts {
  readonly context: StorageContext;
  readonly zfs: Zfs;
  readonly pool: ZfsPool;
  readonly images: ZfsImages;
  readonly owners: OwnersOnDisk;
  readonly settings: VolumeSettings;
  readonly ghosts: ZfsGhosts;

  constructor(context: StorageContext) {
    this.context = context;
    this.zfs = new Zfs(context.host);
    this.pool = new ZfsPool(context, this.zfs);
    this.images = new ZfsImages(context, this.zfs, this.pool);
    this.owners = new OwnersOnDisk(context, this.zfs);
    this.settings = new VolumeSettings(context, this.zfs);
    this.ghosts = new ZfsGhosts(this);
  }

  /** Where the volume's dataset is mounted. */
  path({ kind, name }: VolumeRef): string {
    return join(this.context.poolPath, PARENT_OF[kind], name);
  }

  /** Where snapshots of the volume are mounted. */
  snapshotsPath({ kind, name }: VolumeRef): string {
    return join(this.context.poolPath, `${PARENT_OF[kind]}-snapshots`, name);
  }

  async mountable(volume: VolumeRef): Promise<Mountable> {
    return { dataset: this.pool.names.volume(volume), path: this.path(volume), flavour: await this.pool.flavour() };
  }

  /** undefined: absent, or deleted and only waiting to be gone. */
  async find(
    volume: VolumeRef,
    properties: readonly string[],
    signal: AbortSignal,
  ): Promise<ZfsProperties | undefined> {
    try {
      const found = await this.zfs.get(this.pool.names.volume(volume), [PROPERTY.deleted, ...properties], signal);
      return found[PROPERTY.deleted] === '-' ? found : undefined;
    } catch (error) {
      if (kindOf(error) === 'not_found') return undefined;
      throw error;
    }
  }

  /** AppError 'not_found' when it is absent. */
  async require(volume: VolumeRef, properties: readonly string[], signal: AbortSignal): Promise<ZfsProperties> {
    const found = await this.find(volume, properties, signal);
    if (!found) throw new AppError('not_found', `no ${describe(volume)} in pool ${this.context.pool}`);
    return found;
  }

  /** The key of the map that is on the disk; what a crash cut off is settled first. */
  async ownersOf(volume: VolumeRef, signal: AbortSignal): Promise<string> {
    const { [PROPERTY.owners]: owners = '-' } = await this.require(volume, [PROPERTY.owners], signal);
    return this.owners.recover(await this.mountable(volume), owners, signal);
  }

  /** Runs `make`, which makes the volume's dataset in one step; what only still has its name gives way. */
  async publish(volume: VolumeRef, make: () => Promise<void>, signal: AbortSignal): Promise<void> {
    try {
      await make();
    } catch (error) {
      if (kindOf(error) !== 'conflict') throw error;
      if (!(await this.ghosts.makeWay(this.pool.names.volume(volume), volume.kind, signal))) {
        throw new AppError('conflict', `${describe(volume)} exists in pool ${this.context.pool}`, { cause: error });
      }
      await make();
    }
  }
}

function describe({ kind, name }: VolumeRef): string {
  return `${kind === 'container' ? 'instance' : 'volume'} ${name}`;
}
