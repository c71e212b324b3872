// Limits of a project: how many instances it may have, and what they may take together (lxd-engine-contract section 3.6).
import { AppError, messageOf } from '#src/lib/errors.ts';
import { rootDisk } from '../instances/disks.ts';
import { parseInteger, parseSize } from '../instances/values.ts';
import type { Candidate, ProjectEntities } from './entities.ts';

export const AGGREGATE_LIMITS = ['limits.cpu', 'limits.disk', 'limits.memory', 'limits.processes'] as const;
export type AggregateLimit = (typeof AGGREGATE_LIMITS)[number];

const PARSERS: Readonly<Record<AggregateLimit, (value: string) => number>> = {
  'limits.cpu': (value) => {
    if (/[,-]/u.test(value)) throw new AppError('invalid', "CPUs can't be pinned if project limits are used");
    return parseInteger(value);
  },
  'limits.disk': parseSize,
  'limits.memory': (value) => {
    if (value.endsWith('%')) throw new AppError('invalid', "Value can't be a percentage");
    return parseSize(value);
  },
  'limits.processes': parseInteger,
};

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** 1.50GiB, as LXD prints it. */
function sizeText(bytes: number): string {
  const power = bytes < 1024 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log2(bytes) / 10));
  return power === 0 ? `${bytes}B` : `${(bytes / 1024 ** power).toFixed(2)}${UNITS[power]}`;
}

/** Undefined: no limit. */
export function limitOf(key: AggregateLimit, value: string | undefined): number | undefined {
  return value === undefined || value === '' ? undefined : PARSERS[key](value);
}

/** One more instance. AppError with LXD's text. */
export function checkInstanceCount({ project, instances }: ProjectEntities): void {
  const { name, config } = project;
  const total = config['limits.instances'] ?? '';
  if (total !== '' && instances.length > Number(total)) {
    throw new AppError('internal', `Reached maximum number of instances in project "${name}"`);
  }
  const containers = config['limits.containers'] ?? '';
  if (containers !== '' && instances.length > Number(containers)) {
    throw new AppError('internal', `Reached maximum number of instances of type "container" in project "${name}"`);
  }
}

/** What all entities take together. AppError with LXD's text where one says nothing of what is limited. */
export function total(entities: ProjectEntities, key: AggregateLimit, { skipUnset = false } = {}): number {
  const { project, instances, volumes } = entities;
  let sum = 0;
  for (const { name, sizeBytes } of key === 'limits.disk' ? volumes : []) {
    if (sizeBytes === undefined && !skipUnset) {
      throw new AppError('internal', `Custom volume "${name}" in project "${project.name}" has no "size" config set`);
    }
    sum += sizeBytes ?? 0;
  }
  for (const instance of instances) sum += amountOf(instance, project.name, { key, skipUnset });
  return sum;
}

interface Asked {
  readonly key: AggregateLimit;
  readonly skipUnset: boolean;
}

function amountOf(instance: Candidate, project: string, { key, skipUnset }: Asked): number {
  const where = `nstance "${instance.name}" in project "${project}"`;
  const value = valueOf(instance, key);
  if (value === '') {
    if (skipUnset) return 0;
    const what =
      key === 'limits.disk'
        ? 'has no "size" config set on the root device either directly or via a profile'
        : `has no "${key}" config, either directly or via a profile`;
    throw new AppError('internal', `I${where} ${what}`);
  }
  try {
    return PARSERS[key](value);
  } catch (cause) {
    if (skipUnset) return 0;
    throw new AppError('internal', `Failed parsing "${key}" for i${where}`, { cause });
  }
}

function valueOf({ config, devices }: Candidate, key: AggregateLimit): string {
  if (key !== 'limits.disk') return config[key] ?? '';
  return devices[rootDisk(devices).device]?.['size'] ?? '';
}

/** AppError with LXD's text when the entities take more than the project may. */
export function checkTotals(entities: ProjectEntities): void {
  const { name, config } = entities.project;
  for (const key of AGGREGATE_LIMITS) {
    const limit = limitOf(key, config[key]);
    if (limit === undefined) continue;
    if (usage(entities, key) <= limit) continue;
    throw new AppError(
      'internal',
      `Reached maximum aggregate value "${config[key]}" for "${key}" in project "${name}"`,
    );
  }
}

function usage(entities: ProjectEntities, key: AggregateLimit): number {
  try {
    return total(entities, key);
  } catch (cause) {
    throw new AppError('internal', `Failed getting usage of project entities: ${messageOf(cause)}`, { cause });
  }
}

/** Keys that count instances, as LXD calls them and what they count. */
const COUNTS = [
  ['limits.instances', 'limits.instances', 'total instances'],
  ['limits.containers', '"limits.containers"', 'instances of type container'],
] as const;

/** The limits in `changed` are new. AppError with LXD's text when one is below what the project has already. */
export function checkNewLimits(entities: ProjectEntities, changed: readonly string[]): void {
  const { project, instances } = entities;
  const count = instances.length;
  for (const [key, label, what] of COUNTS) {
    const value = project.config[key] ?? '';
    if (!changed.includes(key) || value === '' || count <= Number(value)) continue;
    const reason = `"${key}" is too low: there currently are ${count} ${what} in project "${project.name}"`;
    throw new AppError('internal', `Can't change ${label} in project "${project.name}": ${reason}`);
  }
  for (const key of AGGREGATE_LIMITS) if (changed.includes(key)) checkNewTotal(entities, key);
}

function checkNewTotal(entities: ProjectEntities, key: AggregateLimit): void {
  const limit = limitOf(key, entities.project.config[key]);
  if (limit === undefined) return;
  const sum = total(entities, key);
  if (sum <= limit) return;
  const text = key === 'limits.disk' || key === 'limits.memory' ? sizeText(sum) : String(sum);
  throw new AppError('internal', `"${key}" is too low: current total is "${text}"`);
}
