// Projects: name spaces of instances, and of images, profiles, volumes and networks if they have their own.
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import { DEFAULT_PROJECT, type ProjectRecord } from '../db/projects.ts';
import { parseBoolean } from '../instances/values.ts';
import type { OperationRegistry } from '../operations/operations.ts';
import type { ConfigMap } from '../types.ts';
import { PROJECT_FEATURES, validateProjectConfig, validateProjectName } from './config.ts';
import { AGGREGATE_LIMITS, limitOf, total } from './limits.ts';
import { projectSuffix } from './project-url.ts';

type Context = Pick<EngineContext, 'database' | 'events' | 'gate'> & { readonly operations: OperationRegistry };
type Content = Pick<ProjectRecord, 'description' | 'config'>;

/** Of what a new project has its own unless it says otherwise. */
const FEATURES_OF_NEW = ['features.images', 'features.profiles', 'features.storage.volumes'] as const;

export interface ProjectUsage {
  /** -1: none. */
  readonly Limit: number;
  readonly Usage: number;
}

export class Projects {
  readonly #context: Context;
  readonly #users: ((project: string) => readonly string[])[] = [];

  constructor(context: Context) {
    this.#context = context;
  }

  /** URLs of things that belong to a project and are not known here, for used_by. */
  countUsers(users: (project: string) => readonly string[]): void {
    this.#users.push(users);
  }

  list(): readonly ProjectRecord[] {
    return this.#context.database.projects.list();
  }

  /** AppError 'not_found' with LXD's text. */
  get(name: string): ProjectRecord {
    return this.#context.database.projects.get(name);
  }

  /** Exact: deleting depends on it. */
  usedBy(name: string): readonly string[] {
    const { database } = this.#context;
    const suffix = projectSuffix(name);
    const holds = (feature: 'images' | 'profiles') => database.projects.holder(feature, name) === name;
    const images = holds('images') ? database.images.list(name) : [];
    const profiles = holds('profiles') ? database.profiles.list(name) : [];
    return [
      ...database.instances.names(name).map((instance) => `/1.0/instances/${instance}${suffix}`),
      ...images.map(({ fingerprint }) => `/1.0/images/${fingerprint}${suffix}`),
      ...profiles.map((profile) => `/1.0/profiles/${encodeURIComponent(profile.name)}${suffix}`),
      ...this.#users.flatMap((users) => users(name)),
    ];
  }

  /** Whether nothing but its own default profile is in it. */
  #isEmpty(name: string): boolean {
    return this.usedBy(name).every((url) => url.split('?', 1)[0] === `/1.0/profiles/${DEFAULT_PROJECT}`);
  }

  create(name: string, { description, config }: Content): void {
    const { database, events } = this.#context;
    validateProjectName(name);
    const own = { ...config };
    for (const feature of FEATURES_OF_NEW) if ((own[feature] ?? '') === '') own[feature] = 'true';
    const stored = normalised(own);
    try {
      database.transaction(() => {
        database.projects.create({ name, description, config: stored });
        if (stored['features.profiles'] === 'true') this.#addDefaultProfile(name);
      });
    } catch (cause) {
      const text = `Failed creating project "${name}": Failed adding database record: ${messageOf(cause)}`;
      throw new AppError(kindOf(cause), text, { cause });
    }
    events.lifecycle({ action: 'project-created', source: `/1.0/projects/${name}`, project: name });
  }

  #addDefaultProfile(project: string): void {
    const description = `Default LXD profile for project ${project}`;
    this.#context.database.profiles.create({ project, name: 'default', description, config: {}, devices: {} });
  }

  update(project: ProjectRecord, content: Content): void {
    const { database, events, gate } = this.#context;
    const { name } = project;
    const config = normalised(content.config);
    const keys = new Set([...Object.keys(project.config), ...Object.keys(config)]);
    const changed = [...keys].filter((key) => (project.config[key] ?? '') !== (config[key] ?? ''));
    this.#checkFeatures(project, changed);
    const next = { name, description: content.description, config };
    gate.changedProject(next, changed);
    database.transaction(() => {
      const hadProfiles = project.config['features.profiles'] === 'true';
      if (hadProfiles && config['features.profiles'] !== 'true') {
        for (const profile of database.profiles.list(name)) database.profiles.delete(profile.id);
      }
      database.projects.update(next);
      if (!hadProfiles && config['features.profiles'] === 'true') this.#addDefaultProfile(name);
    });
    events.lifecycle({ action: 'project-updated', source: `/1.0/projects/${name}`, project: name });
  }

  #checkFeatures(project: ProjectRecord, changed: readonly string[]): void {
    const features = PROJECT_FEATURES.filter((feature) => changed.includes(feature));
    if (features.length === 0) return;
    if (project.name === DEFAULT_PROJECT) {
      throw new AppError('invalid', "You can't change the features of the default project");
    }
    const [feature = ''] = features;
    if (this.#isEmpty(project.name)) return;
    const what = project.config[feature] === 'true' ? 'disabled' : 'enabled';
    throw new AppError('invalid', `Project feature "${feature}" cannot be ${what} on non-empty projects`);
  }

  /** An operation. */
  rename(name: string, newName: string): string {
    const { database, events, operations } = this.#context;
    if (name === DEFAULT_PROJECT) throw new AppError('forbidden', "The 'default' project cannot be renamed");
    const resources = { projects: [`/1.0/projects/${name}`] };
    return operations.start({ class: 'task', description: 'Renaming project', resources }, async () => {
      if (database.projects.find(newName)) {
        throw new AppError('conflict', `A project named "${newName}" already exists`);
      }
      database.projects.get(name);
      if (!this.#isEmpty(name)) throw new AppError('invalid', 'Only empty projects can be renamed');
      validateProjectName(newName);
      database.projects.rename(name, newName);
      const context = { old_name: name };
      events.lifecycle({ action: 'project-renamed', source: `/1.0/projects/${newName}`, project: newName, context });
    });
  }

  delete(name: string): void {
    const { database, events } = this.#context;
    if (name === DEFAULT_PROJECT) throw new AppError('forbidden', "The 'default' project cannot be deleted");
    database.projects.get(name);
    if (!this.#isEmpty(name)) throw new AppError('invalid', 'Only empty projects can be removed');
    database.transaction(() => {
      if (database.projects.holder('profiles', name) === name) {
        for (const profile of database.profiles.list(name)) database.profiles.delete(profile.id);
      }
      database.projects.delete(name);
    });
    events.lifecycle({ action: 'project-deleted', source: `/1.0/projects/${name}`, project: name });
  }

  /** What it may take, and takes. */
  state(name: string): Readonly<Record<string, ProjectUsage>> {
    const entities = this.#context.gate.entities(name);
    const { config } = entities.project;
    const count = entities.instances.length;
    const limit = (key: string) => ((config[key] ?? '') === '' ? -1 : Number(config[key]));
    const aggregates = AGGREGATE_LIMITS.map((key) => {
      const usage = { Limit: limitOf(key, config[key]) ?? -1, Usage: total(entities, key, { skipUnset: true }) };
      return [key.slice('limits.'.length), usage] as const;
    });
    const networks = this.usedBy(name).filter((url) => url.startsWith('/1.0/networks/')).length;
    return {
      ...Object.fromEntries(aggregates),
      containers: { Limit: limit('limits.containers'), Usage: count },
      instances: { Limit: limit('limits.instances'), Usage: count },
      networks: { Limit: limit('limits.networks'), Usage: networks },
      'virtual-machines': { Limit: limit('limits.virtual-machines'), Usage: 0 },
    };
  }
}

/** Checked, without empty values, and with features as `true` or `false`: what holds them is asked often. */
function normalised(config: ConfigMap): ConfigMap {
  validateProjectConfig(config);
  const entries = Object.entries(config).filter(([, value]) => value !== '');
  return Object.fromEntries(
    entries.map(([key, value]) => [key, key.startsWith('features.') ? String(parseBoolean(value)) : value]),
  );
}
