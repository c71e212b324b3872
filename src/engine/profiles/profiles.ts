// Profiles: shared configuration of instances, applied to those that run as soon as it changes.
import { AppError } from '#src/lib/errors.ts';
import { devicesWithoutEmpty, withoutEmpty } from '../config-maps.ts';
import type { ProfileRecord } from '../db/records.ts';
import type { EngineContext } from '../context.ts';
import type { ConfigMap, DeviceMap, InstancesPart } from '../types.ts';
import { projectSuffix } from '../projects/project-url.ts';
import { checkName } from './names.ts';

export interface ProfileContent {
  readonly description: string;
  readonly config: ConfigMap;
  readonly devices: DeviceMap;
}

type Context = Pick<EngineContext, 'database' | 'events' | 'gate' | 'locks'>;
export type ProfileUsers = Pick<InstancesPart, 'rules' | 'profileChanged'>;

const DEFAULT = 'default';

export class Profiles {
  readonly #context: Context;
  readonly #users: ProfileUsers;

  constructor(context: Context, users: ProfileUsers) {
    this.#context = context;
    this.#users = users;
  }

  list(project: string): readonly ProfileRecord[] {
    return this.#context.database.profiles.list(project);
  }

  /** Of all projects. */
  listAll(): readonly ProfileRecord[] {
    return this.#context.database.profiles.listAll();
  }

  get(project: string, name: string): ProfileRecord {
    return this.#context.database.profiles.get(project, name);
  }

  /** URLs of the instances that use it; exact, deleting depends on it. */
  usedBy({ project, name }: Pick<ProfileRecord, 'project' | 'name'>): readonly string[] {
    const users = this.#context.database.instances.usingProfile(project, name);
    return users.map((instance) => `/1.0/instances/${instance.name}${projectSuffix(instance.project)}`);
  }

  create(project: string, name: string, wanted: ProfileContent): void {
    checkName('Profile', name);
    const content = kept(wanted);
    this.#validate(project, content);
    this.#context.gate.changedProfile(project, { name, ...content });
    this.#context.database.profiles.create({ project, name, ...content });
    this.#publish('profile-created', project, name);
  }

  /**
   * Replaces the content and applies it to each instance that uses it. The profile stays changed when an instance
   * refuses: the error says which.
   */
  async update(profile: ProfileRecord, wanted: ProfileContent, signal: AbortSignal): Promise<void> {
    const { project, name } = profile;
    const content = kept(wanted);
    const { database, locks } = this.#context;
    await locks.run(
      `profile/${project}/${name}`,
      async () => {
        const former = this.get(project, name);
        this.#validate(project, content);
        this.#checkRootPool(profile, content);
        this.#context.gate.changedProfile(project, { name, ...content });
        database.profiles.update(profile.id, content);
        this.#publish('profile-updated', project, name);
        await this.#users.profileChanged(former, signal);
      },
      signal,
    );
  }

  rename(project: string, name: string, newName: string): void {
    if (name === DEFAULT) throw new AppError('forbidden', 'The "default" profile cannot be renamed');
    checkName('Profile', newName);
    this.#context.database.profiles.rename(this.get(project, name).id, newName);
    const context = { old_name: name };
    this.#context.events.lifecycle({ action: 'profile-renamed', source: `/1.0/profiles/${newName}`, project, context });
  }

  /** AppError 'conflict' while an instance uses it. */
  delete(project: string, name: string): void {
    if (name === DEFAULT) throw new AppError('forbidden', 'The "default" profile cannot be deleted');
    const { database } = this.#context;
    const profile = this.get(project, name);
    if (this.usedBy(profile).length > 0) throw new AppError('conflict', 'Profile is currently in use');
    database.profiles.delete(profile.id);
    this.#publish('profile-deleted', project, name);
  }

  #validate(project: string, { config, devices }: ProfileContent): void {
    this.#users.rules.validateConfig(config, { profile: true });
    this.#users.rules.validateDevices(devices, { profile: true, project });
  }

  /** The root of an instance stays in its pool: the profile that names the pool may not name another, nor none. */
  #checkRootPool({ project, name }: ProfileRecord, { devices }: ProfileContent): void {
    const { database } = this.#context;
    const poolOf = (profile: string) =>
      rootPool(profile === name ? devices : (database.profiles.find(project, profile)?.devices ?? {}));
    for (const instance of database.instances.usingProfile(project, name)) {
      const pools = instance.profiles.map(poolOf).filter((pool) => pool !== undefined);
      if ((rootPool(instance.devices) ?? pools.at(-1)) === instance.pool) continue;
      const reason = "At least one instance relies on this profile's root disk device";
      throw new AppError('invalid', `${reason}: ${instance.name}`);
    }
  }

  #publish(action: string, project: string, name: string): void {
    this.#context.events.lifecycle({ action, source: `/1.0/profiles/${name}`, project });
  }
}

/** `lxc profile unset` gives the key an empty value. */
function kept({ description, config, devices }: ProfileContent): ProfileContent {
  return { description, config: withoutEmpty(config), devices: devicesWithoutEmpty(devices) };
}

/** The pool of the root disk among `devices`. */
export function rootPool(devices: DeviceMap): string | undefined {
  return Object.values(devices).find(({ type, path }) => type === 'disk' && path === '/')?.['pool'];
}
