// What counts towards the limits of a project and falls under its restrictions: its instances and profiles as they would be
// after a change.
import type { EngineDatabase } from '../db/database.ts';
import type { ProjectRecord } from '../db/projects.ts';
import type { InstanceRecord, ProfileRecord } from '../db/records.ts';
import type { ConfigMap, DeviceMap } from '../types.ts';

/** An instance or a profile as it would be. */
export interface Candidate {
  readonly name: string;
  readonly config: ConfigMap;
  readonly devices: DeviceMap;
}

export interface InstanceCandidate extends Candidate {
  readonly profiles: readonly string[];
}

/** A custom volume of a project. */
export interface ProjectVolume {
  readonly name: string;
  /** Undefined: no size is set. */
  readonly sizeBytes: number | undefined;
}

/** Everything of one project, profiles applied. */
export interface ProjectEntities {
  readonly project: ProjectRecord;
  readonly instances: readonly Candidate[];
  /** Of its own, or the shared ones of the default project. */
  readonly profiles: readonly Candidate[];
  readonly volumes: readonly ProjectVolume[];
}

export interface Change {
  /** Takes the place of the one of that name, or comes in addition. */
  readonly instance?: InstanceCandidate;
  readonly profile?: Candidate;
  readonly volume?: ProjectVolume;
}

export type VolumesOf = (project: string) => readonly ProjectVolume[];

/** The project with `change` made. */
export function entitiesOf(
  database: EngineDatabase,
  project: ProjectRecord,
  { change = {}, volumesOf }: { readonly change?: Change; readonly volumesOf: VolumesOf },
): ProjectEntities {
  const profiles = replaced<Candidate>(database.profiles.list(project.name), change.profile);
  const byName = new Map(profiles.map((profile) => [profile.name, profile]));
  const local = replaced<InstanceCandidate>(database.instances.list(project.name), change.instance);
  const instances = local.map((instance) => {
    const layers = [...instance.profiles.flatMap((name) => byName.get(name) ?? []), instance];
    return {
      name: instance.name,
      config: Object.assign({}, ...layers.map(({ config }) => config)) as ConfigMap,
      devices: Object.assign({}, ...layers.map(({ devices }) => devices)) as DeviceMap,
    };
  });
  return { project, profiles, instances, volumes: replaced(volumesOf(project.name), change.volume) };
}

function replaced<T extends { readonly name: string }>(
  known: readonly (T & (InstanceRecord | ProfileRecord | ProjectVolume))[] | readonly T[],
  changed: T | undefined,
): readonly T[] {
  if (!changed) return known;
  return [...known.filter(({ name }) => name !== changed.name), changed];
}
