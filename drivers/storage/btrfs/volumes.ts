// Volumes as subvolumes: made empty or of an image, copied, limited; their snapshots readonly subvolumes.
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { Host } from '#src/host/host.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { NewVolume, StorageContext, VolumeCopy, VolumeRef } from '../driver.ts';
import { writeRecord } from '../common/volume-record.ts';
import type { Places } from './places.ts';

/** LXD's: none but the root of the container gets through. */
export const INSTANCE_MODE = 0o100;
const CUSTOM_MODE = 0o711;
export const SNAPSHOTS_MODE = { container: 0o711, custom: 0o700 } as const;

export class Volumes {
  readonly #context: StorageContext;
  readonly #host: Host;
  readonly #places: Places;

  constructor(context: StorageContext, places: Places) {
    this.#context = context;
    this.#host = context.host;
    this.#places = places;
  }

  /** `owners`: of what is made on the disk. */
  async create(volume: NewVolume, owners: IdMapRange | null, signal: AbortSignal): Promise<void> {
    const { image, sizeBytes } = volume;
    signal.throwIfAborted();
    const make = async (work: string): Promise<void> => {
      if (image === undefined) await this.#makeEmpty(work, volume, owners);
      else await this.#cloneImage(image, work);
      if (sizeBytes !== undefined) await this.#limitNew(work, volume, sizeBytes);
    };
    await this.#publish(volume, make, signal);
  }

  async delete(volume: VolumeRef): Promise<void> {
    await this.#places.remove(this.#places.volume(volume));
    for (const snapshot of await this.snapshots(volume)) await this.#places.removeSnapshot(volume, snapshot);
    await this.#places.discard(this.#places.snapshots(volume)); // of a deletion that was cut off
  }

  /** The volume first: when it has the new name and its snapshots have not, another call goes on. */
  async rename({ kind, name }: VolumeRef, newName: string): Promise<void> {
    const [from, to] = [this.#places.volume({ kind, name }), this.#places.volume({ kind, name: newName })];
    if ((await this.#host.exists(from)) || !(await this.#host.exists(to))) await this.#host.btrfs.publish(from, to);
    const snapshots = this.#places.snapshots({ kind, name });
    if (!(await this.#host.exists(snapshots))) return;
    await this.#host.rename(snapshots, this.#places.snapshots({ kind, name: newName }));
  }

  list(kind: VolumeRef['kind']): Promise<readonly string[]> {
    return this.#places.list(this.#places.volumes(kind));
  }

  /** undefined: quotas are off, which they are as long as nothing has a size. */
  async usage(path: string): Promise<number | undefined> {
    return (await this.#host.btrfs.usage(path))?.exclusiveBytes;
  }

  resize(volume: VolumeRef, sizeBytes: number | undefined): Promise<void> {
    return this.#host.btrfs.limit(this.#places.volume(volume), sizeBytes);
  }

  snapshots(volume: VolumeRef): Promise<readonly string[]> {
    return this.#places.list(this.#places.snapshots(volume));
  }

  async createSnapshot(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    const path = this.#places.snapshot(volume, snapshot);
    await this.#host.makeDirectory(this.#places.snapshots(volume), { mode: SNAPSHOTS_MODE[volume.kind] });
    const make = (work: string): Promise<void> => {
      return this.#host.btrfs.snapshot(this.#places.volume(volume), work, { readonly: true });
    };
    await this.#places.publish(path, make, signal);
  }

  /** What the volume was changes places with a copy of the snapshot; its limit stays. */
  async restore(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    await this.replaceBy(volume, this.#places.snapshot(volume, snapshot), { signal });
  }

  /** `change` may alter the copy before it takes the volume's place. */
  async replaceBy(
    volume: VolumeRef,
    source: string,
    { change, signal }: { readonly change?: (work: string) => Promise<void>; readonly signal: AbortSignal },
  ): Promise<void> {
    const path = this.#places.volume(volume);
    const limit = await this.#host.btrfs.limitOf(path);
    const make = async (work: string): Promise<void> => {
      await this.#host.btrfs.snapshot(source, work);
      await change?.(work);
      if (limit !== undefined) await this.#host.btrfs.limit(work, limit);
    };
    await this.#places.replace(path, make, signal);
  }

  async copy({ from, snapshot, snapshots, to }: VolumeCopy, signal: AbortSignal): Promise<void> {
    const source = snapshot === undefined ? this.#places.volume(from) : this.#places.snapshot(from, snapshot);
    await this.#refuseExisting(to);
    await using revert = new Reverter(this.#context.log);
    const folder = this.#places.snapshots(to);
    if (snapshots.length > 0) {
      const work = this.#places.beside(folder);
      revert.add(`snapshots of ${to.name}`, () => this.#places.discard(work));
      await this.#copySnapshots(from, snapshots, { folder: work, signal });
      await this.#host.rename(work, folder);
      revert.add(`snapshots of ${to.name}`, () => this.#places.discard(folder));
    }
    const make = async (work: string): Promise<void> => {
      await this.#host.btrfs.snapshot(source, work);
      if (to.sizeBytes !== undefined) await this.#limitNew(work, to, to.sizeBytes);
    };
    await this.#publish(to, make, signal);
    revert.commit();
  }

  async #copySnapshots(
    from: VolumeRef,
    snapshots: readonly string[],
    { folder, signal }: { readonly folder: string; readonly signal: AbortSignal },
  ): Promise<void> {
    await this.#host.makeDirectory(folder, { mode: SNAPSHOTS_MODE[from.kind], fresh: true });
    for (const snapshot of snapshots) {
      signal.throwIfAborted();
      await this.#host.btrfs.snapshot(this.#places.snapshot(from, snapshot), join(folder, snapshot), {
        readonly: true,
      });
    }
  }

  async #publish(volume: VolumeRef, make: (work: string) => Promise<void>, signal: AbortSignal): Promise<void> {
    await this.#refuseExisting(volume);
    await this.#places.publish(this.#places.volume(volume), make, signal);
  }

  async #refuseExisting(volume: VolumeRef): Promise<void> {
    if (!(await this.#host.exists(this.#places.volume(volume)))) return;
    const what = volume.kind === 'container' ? 'instance' : 'volume';
    throw new AppError('conflict', `${what} ${volume.name} exists in pool ${this.#context.pool}`);
  }

  /** The image has the mode and the record of an instance already. */
  async #cloneImage(image: string, work: string): Promise<void> {
    const path = this.#places.image(image);
    if (!(await this.#host.exists(path))) throw noImage(image, this.#context.pool);
    await this.#host.btrfs.snapshot(path, work);
  }

  async #makeEmpty(work: string, { kind }: NewVolume, owners: IdMapRange | null): Promise<void> {
    await this.#host.btrfs.create(work);
    await this.#host.setMode(work, kind === 'custom' ? CUSTOM_MODE : INSTANCE_MODE);
    if (kind === 'custom') return;
    const rootfs = join(work, 'rootfs');
    await this.#host.makeDirectory(rootfs, { mode: 0o755, fresh: true });
    await this.#host.chown(rootfs, owners?.uidBase ?? 0, owners?.gidBase ?? 0);
    await writeRecord(this.#host, work, { image: null, owners });
  }

  /** AppError 'invalid' when it begins with more than that: nothing could be written in it. */
  async #limitNew(work: string, { name }: NewVolume, sizeBytes: number): Promise<void> {
    await this.#host.btrfs.limit(work, sizeBytes);
    const { referencedBytes = 0 } = (await this.#host.btrfs.usage(work)) ?? {};
    if (referencedBytes <= sizeBytes) return;
    throw new AppError('invalid', `${name} begins with ${referencedBytes} bytes, more than its size of ${sizeBytes}`);
  }
}

export function noImage(fingerprint: string, pool: string): AppError {
  return new AppError('not_found', `no image ${fingerprint} in pool ${pool}`);
}
