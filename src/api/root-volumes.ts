// Volumes of instances and images behind /1.0/storage-pools/POOL/volumes: found, and what users may change of them.
import type { FastifyRequest } from 'fastify';
import { ZERO_TIME } from '#src/engine/db/records.ts';
import type { VolumeNotes } from '#src/engine/db/root-volumes.ts';
import { changeRootVolume, type RootVolumeKey } from '#src/engine/volumes/root-volumes.ts';
import { AppError } from '#src/lib/errors.ts';
import { ApiError, checkIfMatch } from './envelope.ts';
import { existingProject } from './project.ts';
import type { Volume } from './storage-volumes.ts';
import type { VolumeDeps } from './volumes.ts';

interface Params {
  readonly pool: string;
  readonly type: string;
  readonly volume: string;
  readonly snapshot?: string;
}

export function isRootVolume(request: FastifyRequest): boolean {
  const { type } = request.params as Params;
  return type === 'container' || type === 'image';
}

function keyOf(request: FastifyRequest): RootVolumeKey {
  const { pool, type, volume, snapshot } = request.params as Params;
  const place = { project: existingProject(request), pool };
  if (type === 'image' && snapshot === undefined) return { ...place, type, fingerprint: volume };
  if (type !== 'container') {
    throw new ApiError(400, `Snapshots of storage volumes of type "${type}" is not supported`);
  }
  return { ...place, type, instance: volume, ...(snapshot !== undefined && { snapshot }) };
}

export const mutableOfVolume = ({ name, type, config }: Volume) => [name, type, config];
export const mutableOfSnapshot = ({ description }: Pick<Volume, 'description'>) => [description, ZERO_TIME];

/** `volume`: as it was shown, for If-Match. */
export function changeNotes(
  request: FastifyRequest,
  { context }: VolumeDeps,
  volume: Volume,
  change: (notes: VolumeNotes) => VolumeNotes,
): void {
  const key = keyOf(request);
  const isSnapshot = key.type === 'container' && key.snapshot !== undefined;
  checkIfMatch(request, isSnapshot ? mutableOfSnapshot(volume) : mutableOfVolume(volume));
  changeRootVolume(context, key, change);
}

/** AppError 'not_found' with LXD's text. */
export function rootVolumeOf(request: FastifyRequest, volumes: readonly Volume[]): Volume {
  const { type, volume, snapshot } = request.params as Params;
  const name = snapshot === undefined ? volume : `${volume}/${snapshot}`;
  const found = volumes.find((one) => one.type === type && one.name === name);
  if (!found) throw new AppError('not_found', 'Storage pool volume not found');
  return found;
}

export function rootSnapshotView({ config, content_type, created_at, description, name }: Volume): object {
  return { config, content_type, created_at, description, expires_at: ZERO_TIME, name };
}
