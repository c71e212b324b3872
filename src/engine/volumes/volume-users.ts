// Who uses a custom volume: instances and profiles of all projects that share it, by their disk devices.
import type { EngineContext } from '../context.ts';
import { DEFAULT_PROJECT } from '../db/projects.ts';
import type { InstanceRecord, VolumeRecord } from '../db/records.ts';
import { projectFor } from '../projects/project-for.ts';
import { projectSuffix } from '../projects/project-url.ts';
import type { ConfigMap, DeviceMap } from '../types.ts';
import { expander } from '../instances/expansion.ts';

type Context = Pick<EngineContext, 'database'>;

function isOf({ pool, name }: VolumeRecord, device: ConfigMap): boolean {
  return device['type'] === 'disk' && device['pool'] === pool && device['source'] === name && device['path'] !== '/';
}

function uses(volume: VolumeRecord, devices: DeviceMap): boolean {
  return Object.values(devices).some((device) => isOf(volume, device));
}

function shares({ database }: Context, volume: VolumeRecord): (project: string) => boolean {
  return (project) => projectFor(database, 'storage.volumes', project) === volume.project;
}

/** With what their profiles give them. */
export function usingInstances(context: Context, volume: VolumeRecord): readonly InstanceRecord[] {
  const expand = expander(context.database);
  const isShared = shares(context, volume);
  return context.database.instances
    .list()
    .filter((instance) => isShared(instance.project) && uses(volume, expand(instance).devices));
}

/** URLs, as LXD shows them. */
export function usersOf(context: Context, volume: VolumeRecord): readonly string[] {
  const isShared = shares(context, volume);
  const instances = usingInstances(context, volume).map(({ name, project }) => {
    return `/1.0/instances/${name}${projectSuffix(project)}`;
  });
  const profiles = context.database.profiles
    .listAll()
    .filter(({ project, devices }) => isShared(project) && uses(volume, devices))
    .map(({ name, project }) => `/1.0/profiles/${name}${projectSuffix(project)}`);
  return [...instances, ...profiles, ...(isOfServer(context, volume) ? ['/1.0'] : [])];
}

/** Keys of the server's configuration that name a volume, POOL/VOLUME, for its own files. */
export const SERVER_VOLUME_KEYS = ['storage.images_volume', 'storage.backups_volume'] as const;
export type ServerVolumeKey = (typeof SERVER_VOLUME_KEYS)[number];

export function isOfServer({ database }: Context, { pool, project, name }: VolumeRecord): boolean {
  const config = database.server.config();
  return project === DEFAULT_PROJECT && SERVER_VOLUME_KEYS.some((key) => config[key] === `${pool}/${name}`);
}
