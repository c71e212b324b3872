// Volumes by reference for drivers whose own methods know roots of instances: each call is passed on. Snapshots are refused here.
import { AppError } from '#src/lib/errors.ts';
import type { IdMapRange, MountedRoot, NewInstanceVolume, NewVolume, VolumeKind, VolumeRef } from '../driver.ts';

export abstract class InstanceVolumes {
  abstract createInstance(volume: NewInstanceVolume, signal: AbortSignal): Promise<void>;
  abstract deleteInstance(name: string, signal: AbortSignal): Promise<void>;
  abstract renameInstance(name: string, newName: string, signal: AbortSignal): Promise<void>;
  abstract listInstances(signal: AbortSignal): Promise<readonly string[]>;
  abstract mountInstance(name: string, idMap: IdMapRange | null, signal: AbortSignal): Promise<MountedRoot>;
  abstract unmountInstance(name: string, signal: AbortSignal): Promise<void>;
  abstract resizeInstance(name: string, sizeBytes: number | undefined, signal: AbortSignal): Promise<void>;

  async createVolume({ kind, ...volume }: NewVolume, signal: AbortSignal): Promise<void> {
    if (kind === 'custom') throw unsupported('Custom volumes');
    await this.createInstance(volume, signal);
  }

  async deleteVolume({ kind, name }: VolumeRef, signal: AbortSignal): Promise<void> {
    if (kind === 'container') await this.deleteInstance(name, signal); // absent is success: an instance may have the name
  }

  async renameVolume({ kind, name }: VolumeRef, newName: string, signal: AbortSignal): Promise<void> {
    if (kind === 'custom') throw unsupported('Custom volumes');
    await this.renameInstance(name, newName, signal);
  }

  async listVolumes(kind: VolumeKind, signal: AbortSignal): Promise<readonly string[]> {
    return kind === 'custom' ? [] : this.listInstances(signal);
  }

  async mountVolume({ kind, name }: VolumeRef, idMap: IdMapRange | null, signal: AbortSignal): Promise<MountedRoot> {
    if (kind === 'custom') throw unsupported('Custom volumes');
    return this.mountInstance(name, idMap, signal);
  }

  async unmountVolume({ kind, name }: VolumeRef, signal: AbortSignal): Promise<void> {
    if (kind === 'container') await this.unmountInstance(name, signal);
  }

  async resizeVolume({ kind, name }: VolumeRef, sizeBytes: number | undefined, signal: AbortSignal): Promise<void> {
    if (kind === 'custom') throw unsupported('Custom volumes');
    await this.resizeInstance(name, sizeBytes, signal);
  }

  async createSnapshot(_volume: VolumeRef, _snapshot: string, _signal: AbortSignal): Promise<void> {
    throw unsupported('Snapshots');
  }

  async deleteSnapshot(_volume: VolumeRef, _snapshot: string, _signal: AbortSignal): Promise<void> {
    await Promise.resolve(); // absent is success
  }

  async renameSnapshot(_rename: object, _signal: AbortSignal): Promise<void> {
    throw unsupported('Snapshots');
  }

  async listSnapshots(_volume: VolumeRef, _signal: AbortSignal): Promise<readonly string[]> {
    return [];
  }

  async snapshotUsage(_volume: VolumeRef, _snapshot: string, _signal: AbortSignal): Promise<number | undefined> {
    return undefined;
  }

  async restoreSnapshot(_volume: VolumeRef, _snapshot: string, _signal: AbortSignal): Promise<void> {
    throw unsupported('Snapshots');
  }

  async mountSnapshot(_mount: object, _signal: AbortSignal): Promise<MountedRoot> {
    throw unsupported('Snapshots');
  }

  async unmountSnapshot(_volume: VolumeRef, _snapshot: string, _signal: AbortSignal): Promise<void> {
    await Promise.resolve(); // absent is success
  }
}

function unsupported(what: string): AppError {
  return new AppError('unsupported', `${what} are not supported by the driver of this storage pool`);
}
