// The gate that changes of instances, profiles and volumes pass: limits and restrictions of their project.
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import type { EngineDatabase } from '../db/database.ts';
import type { ProjectRecord } from '../db/projects.ts';
import type { ConfigMap } from '../types.ts';
import {
  type Candidate,
  type Change,
  entitiesOf,
  type InstanceCandidate,
  type ProjectEntities,
  type ProjectVolume,
  type VolumesOf,
} from './entities.ts';
import { checkInstanceCount, checkNewLimits, checkTotals, limitOf, total } from './limits.ts';
import {
  allowedParent,
  checkAllowed,
  checkRestrictions,
  checkVolatile,
  isRestricted,
  restriction,
} from './restrictions.ts';

/** Every method throws AppError with LXD's text for what the project does not allow; of an unlimited one they cost nothing. */
export class ProjectGate {
  readonly #database: EngineDatabase;
  #volumesOf: VolumesOf = () => [];

  constructor(database: EngineDatabase) {
    this.#database = database;
  }

  /** Once: where the custom volumes of a project are found. */
  countVolumes(volumesOf: VolumesOf): void {
    this.#volumesOf = volumesOf;
  }

  newInstance(projectName: string, instance: InstanceCandidate, said: ConfigMap): void {
    const project = this.#limited(projectName);
    if (!project) return;
    refusing('instance creation', () => {
      checkVolatile(project, { name: instance.name, config: said }, {});
      const entities = this.#entities(project, { instance });
      checkInstanceCount(entities);
      this.#check(project, { instance });
    });
  }

  changedInstance(projectName: string, instance: InstanceCandidate, current: ConfigMap): void {
    const project = this.#limited(projectName);
    if (!project) return;
    refusing('instance update', () => {
      checkVolatile(project, instance, current);
      this.#check(project, { instance });
    });
  }

  /** The directory that the source of a disk must not lead out of; undefined: it may be anywhere. */
  sourceParent(projectName: string, source: string): string | undefined {
    const { config } = this.#database.projects.get(projectName);
    if (!isRestricted(config) || restriction(config, 'restricted.devices.disk.paths') === '') return undefined;
    const parent = allowedParent(config, source);
    if (parent === undefined) throw new AppError('forbidden', `Disk source path "${source}" not allowed`);
    return parent;
  }

  /** In every project that uses it. */
  changedProfile(projectName: string, profile: Candidate): void {
    const { projects } = this.#database;
    for (const name of projects.sharing('profiles', projects.holder('profiles', projectName))) {
      const project = this.#limited(name);
      if (project) refusing('profile update', () => this.#check(project, { profile }));
    }
  }

  /** `action` is `creation` or `update`. */
  volume(projectName: string, action: 'creation' | 'update', volume: ProjectVolume): void {
    const project = this.#limited(projectName);
    if (!project || (project.config['limits.disk'] ?? '') === '') return;
    refusing(`volume ${action}`, () => this.#check(project, { volume }));
  }

  /** How many bytes a new image of the project may have; undefined: any. Existing ones do not count. */
  imageBudget(projectName: string): number | undefined {
    const { projects } = this.#database;
    const project = projects.find(projectName);
    if (!project || projects.holder('images', projectName) !== projectName) return undefined;
    const limit = limitOf('limits.disk', project.config['limits.disk']);
    if (limit === undefined) return undefined;
    return Math.max(0, limit - total(this.#entities(project, {}), 'limits.disk'));
  }

  /** Making a backup or a snapshot. */
  allows(projectName: string, what: 'backups' | 'snapshots'): void {
    const project = this.#limited(projectName);
    if (project) checkAllowed(project, what);
  }

  /** `project` with its new configuration; `changed` are the keys whose values are new. */
  changedProject(project: ProjectRecord, changed: readonly string[]): void {
    const entities = this.#entities(project, {});
    const key = changed.find((name) => name === 'restricted' || name.startsWith('restricted.'));
    if (key !== undefined && isRestricted(project.config)) {
      try {
        checkRestrictions(entities);
      } catch (cause) {
        const text = `Conflict detected when changing "${key}" in project "${project.name}": ${messageOf(cause)}`;
        throw new AppError('internal', text, { cause });
      }
    }
    checkNewLimits(entities, changed);
  }

  #check(project: ProjectRecord, change: Change): void {
    const entities = this.#entities(project, change);
    checkTotals(entities);
    if (isRestricted(project.config)) checkRestrictions(entities);
  }

  #entities(project: ProjectRecord, change: Change): ProjectEntities {
    return entitiesOf(this.#database, project, { change, volumesOf: this.#volumesOf });
  }

  /** What a project takes of each of its limits. */
  entities(name: string): ProjectEntities {
    return this.#entities(this.#database.projects.get(name), {});
  }

  #limited(name: string): ProjectRecord | undefined {
    const project = this.#database.projects.find(name);
    if (!project) return undefined;
    const isLimited =
      isRestricted(project.config) || Object.keys(project.config).some((key) => key.startsWith('limits.'));
    return isLimited ? project : undefined;
  }
}

function refusing(what: string, work: () => void): void {
  try {
    work();
  } catch (cause) {
    throw new AppError(kindOf(cause), `Failed checking if ${what} allowed: ${messageOf(cause)}`, { cause });
  }
}
