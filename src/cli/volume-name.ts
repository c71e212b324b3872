// Volumes as users name them: [TYPE/]VOLUME[/SNAPSHOT] of a pool.
import { type Kind, url } from './resource.ts';

export interface VolumeName {
  readonly type: string;
  readonly name: string;
  readonly snapshot: string | undefined;
}

const TYPES = new Set(['custom', 'image', 'container', 'virtual-machine']);

export function parseVolume(text: string): VolumeName {
  const parts = text.split('/');
  const hasType = parts.length > 1 && TYPES.has(parts[0] ?? '');
  const [name = '', ...snapshot] = hasType ? parts.slice(1) : parts;
  const type = hasType ? (parts[0] ?? '') : 'custom';
  return { type, name, snapshot: snapshot.length === 0 ? undefined : snapshot.join('/') };
}

export function volumePath(pool: string, { type, name, snapshot }: VolumeName): string {
  const path = url('storage-pools', pool, 'volumes', type, name);
  return snapshot === undefined ? path : `${path}/snapshots/${encodeURIComponent(snapshot)}`;
}

export const VOLUME_KIND: Kind = {
  noun: 'storage volume',
  title: 'Storage volume',
  names: ['<pool>', '<[type/]volume[/snapshot]>'],
  group: 'storage volume',
  example: 'default data',
  path: ([pool = '', volume = '']) => volumePath(pool, parseVolume(volume)),
  fields: ['config', 'description', 'expires_at'],
  shown: [
    'config',
    'description',
    'name',
    'type',
    'used_by',
    'location',
    'content_type',
    'project',
    'created_at',
    'expires_at',
  ],
};
