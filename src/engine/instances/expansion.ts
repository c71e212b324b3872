// An instance as it is with its profiles applied.
import { AppError } from '#src/lib/errors.ts';
import type { EngineDatabase } from '../db/database.ts';
import type { ConfigMap, DeviceMap } from '../types.ts';

export interface Expanded {
  readonly config: ConfigMap;
  readonly devices: DeviceMap;
}

export interface Unexpanded {
  readonly project: string;
  readonly profiles: readonly string[];
  readonly config: ConfigMap;
  readonly devices: DeviceMap;
}

/** Later profiles win over earlier ones, the instance over all; devices are replaced whole. */
export type Expand = (instance: Unexpanded) => Expanded;

/** A profile as it was before it changed. */
export interface FormerProfile extends Expanded {
  readonly id: number;
}

/** Reads each profile once, however many instances are expanded with the result. */
export function expander(database: EngineDatabase, former?: FormerProfile): Expand {
  const cache = new Map<string, Expanded>();
  const profile = (project: string, name: string): Expanded => {
    const key = `${project}/${name}`;
    const known = cache.get(key);
    if (known) return known;
    const found = database.profiles.find(project, name);
    if (!found) throw new AppError('not_found', `Requested profile "${name}" doesn't exist`);
    const content = former?.id === found.id ? former : found;
    cache.set(key, content);
    return content;
  };
  return ({ project, profiles, config, devices }) => {
    const layers: readonly Expanded[] = [...profiles.map((name) => profile(project, name)), { config, devices }];
    return {
      config: Object.assign({}, ...layers.map((layer) => layer.config)) as ConfigMap,
      devices: Object.assign({}, ...layers.map((layer) => layer.devices)) as DeviceMap,
    };
  };
}
