// Who uses a network: instances as they are with their profiles applied, and profiles.
import type { EngineDatabase } from '../db/database.ts';
import type { InstanceRecord, ProfileRecord } from '../db/records.ts';
import { expander } from '../instances/expansion.ts';
import { projectFor } from '../projects/project-for.ts';
import { projectSuffix } from '../projects/project-url.ts';
import type { DeviceMap } from '../types.ts';

/** A network, or an interface of the host: that of the default project. */
export interface NetworkKey {
  readonly project: string;
  readonly name: string;
}

export interface NetworkUsers {
  readonly instances: readonly (InstanceRecord & { readonly expandedDevices: DeviceMap })[];
  readonly profiles: readonly ProfileRecord[];
}

export function usesNetwork(device: Readonly<Record<string, string>>, network: string): boolean {
  return device['type'] === 'nic' && (device['network'] === network || device['parent'] === network);
}

export function networkUsers(database: EngineDatabase, { project, name }: NetworkKey): NetworkUsers {
  const isVisibleIn = (other: string): boolean => projectFor(database, 'networks', other) === project;
  const uses = (devices: DeviceMap): boolean => Object.values(devices).some((device) => usesNetwork(device, name));
  const expand = expander(database);
  return {
    instances: database.instances
      .list()
      .filter((instance) => isVisibleIn(instance.project))
      .map((instance) => ({ ...instance, expandedDevices: expand(instance).devices }))
      .filter(({ expandedDevices }) => uses(expandedDevices)),
    profiles: database.profiles.listAll().filter(({ project: other, devices }) => isVisibleIn(other) && uses(devices)),
  };
}

/** Exact: deleting depends on it. */
export function networkUsedBy(database: EngineDatabase, key: NetworkKey): readonly string[] {
  const { instances, profiles } = networkUsers(database, key);
  return [
    ...instances.map(({ name, project }) => `/1.0/instances/${name}${projectSuffix(project)}`),
    ...profiles.map(({ name, project }) => `/1.0/profiles/${name}${projectSuffix(project)}`),
  ];
}
