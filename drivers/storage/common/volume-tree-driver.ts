// Drivers of directories with both kinds of volumes: roots of instances, and custom ones.
import type { IdMapRange } from '#src/host/id-map.ts';
import type {
  MountedRoot,
  NewVolume,
  SnapshotMount,
  SnapshotRename,
  StorageContext,
  VolumeCopy,
  VolumeKind,
  VolumeRef,
} from '../driver.ts';
import { CustomTrees } from './custom-trees.ts';
import { TreeDriver } from './tree-driver.ts';

export abstract class VolumeTreeDriver extends TreeDriver {
  readonly #custom: CustomTrees;

  constructor(context: StorageContext) {
    super(context);
    const { pool, quotas } = this;
    this.#custom = new CustomTrees({ context, pool, quotas });
  }

  override createVolume(volume: NewVolume, signal: AbortSignal): Promise<void> {
    return volume.kind === 'custom' ? this.#custom.create(volume, signal) : super.createVolume(volume, signal);
  }

  override deleteVolume(volume: VolumeRef, signal: AbortSignal): Promise<void> {
    return volume.kind === 'custom' ? this.#custom.delete(volume.name) : super.deleteVolume(volume, signal);
  }

  override renameVolume(volume: VolumeRef, newName: string, signal: AbortSignal): Promise<void> {
    if (volume.kind === 'custom') return this.#custom.rename(volume.name, newName);
    return super.renameVolume(volume, newName, signal);
  }

  override listVolumes(kind: VolumeKind, signal: AbortSignal): Promise<readonly string[]> {
    return kind === 'custom' ? this.#custom.list() : super.listVolumes(kind, signal);
  }

  override mountVolume(volume: VolumeRef, idMap: IdMapRange | null, signal: AbortSignal): Promise<MountedRoot> {
    if (volume.kind === 'custom') return this.#custom.mountVolume(volume, idMap, signal);
    return this.mountTree(this.pool.layout.instance(volume.name), { ...volume, idMap }, signal);
  }

  override async unmountVolume(volume: VolumeRef, signal: AbortSignal): Promise<void> {
    if (volume.kind === 'container') await super.unmountVolume(volume, signal);
  }

  override resizeVolume(volume: VolumeRef, sizeBytes: number | undefined, signal: AbortSignal): Promise<void> {
    if (volume.kind === 'custom') return this.#custom.resize(volume.name, sizeBytes);
    return super.resizeVolume(volume, sizeBytes, signal);
  }

  volumeUsage(volume: VolumeRef): Promise<number | undefined> {
    return volume.kind === 'custom' ? this.#custom.usage(volume.name) : this.instanceUsage(volume.name);
  }

  override createSnapshot(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    if (volume.kind === 'custom') return this.#custom.createSnapshot(volume.name, snapshot, signal);
    return super.createSnapshot(volume, snapshot, signal);
  }

  override deleteSnapshot(volume: VolumeRef, snapshot: string): Promise<void> {
    if (volume.kind === 'custom') return this.#custom.deleteSnapshot(volume.name, snapshot);
    return super.deleteSnapshot(volume, snapshot);
  }

  override renameSnapshot(rename: SnapshotRename): Promise<void> {
    const { volume, snapshot, newName } = rename;
    if (volume.kind === 'custom') return this.#custom.renameSnapshot(volume.name, snapshot, newName);
    return super.renameSnapshot(rename);
  }

  override listSnapshots(volume: VolumeRef): Promise<readonly string[]> {
    return volume.kind === 'custom' ? this.#custom.listSnapshots(volume.name) : super.listSnapshots(volume);
  }

  override restoreSnapshot(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    if (volume.kind === 'custom') return this.#custom.restore(volume.name, snapshot, signal);
    return super.restoreSnapshot(volume, snapshot, signal);
  }

  override mountSnapshot(mount: SnapshotMount, signal: AbortSignal): Promise<MountedRoot> {
    const { volume, snapshot } = mount;
    if (volume.kind === 'custom') return this.#custom.mountSnapshot(volume.name, snapshot);
    return super.mountSnapshot(mount, signal);
  }

  override async unmountSnapshot(volume: VolumeRef, snapshot: string): Promise<void> {
    if (volume.kind === 'container') await super.unmountSnapshot(volume, snapshot);
  }

  override copyVolume(copy: VolumeCopy, signal: AbortSignal): Promise<void> {
    return copy.from.kind === 'custom' ? this.#custom.copy(copy, signal) : super.copyVolume(copy, signal);
  }
}
