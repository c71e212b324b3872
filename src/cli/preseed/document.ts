// The first configuration of an engine as one YAML document, in the format of `lxd init --preseed`.
import { parse } from 'yaml';
import { AppError, messageOf } from '#src/lib/errors.ts';

type Texts = Readonly<Record<string, string>>;

/** One thing that is made, or changed where it is there already. */
export interface Wanted {
  readonly name: string;
  /** Of networks and profiles. */
  readonly project?: string;
  readonly description?: string;
  readonly config?: Texts;
  /** Of profiles. */
  readonly devices?: Readonly<Record<string, Texts>>;
  /** Of storage pools. */
  readonly driver?: string;
  /** Of networks. */
  readonly type?: string;
}

export interface Preseed {
  readonly config: Texts;
  readonly networks: readonly Wanted[];
  readonly storage_pools: readonly Wanted[];
  readonly projects: readonly Wanted[];
  readonly profiles: readonly Wanted[];
}

const COMMON = ['name', 'description', 'config'];

/** The lists of the document and what one of each may say. */
export const LISTS = {
  storage_pools: [...COMMON, 'driver'],
  networks: [...COMMON, 'project', 'type'],
  projects: COMMON,
  profiles: [...COMMON, 'project', 'devices'],
} as const;

type List = keyof typeof LISTS;

const CLUSTER = 'cluster';

/**
 * Every value of a configuration is a text, whatever it looks like.
 * AppError 'invalid' for what is no such document, 'unsupported' for one that makes a cluster.
 */
export function readPreseed(text: string): Preseed {
  const document = mapAt(parsed(text), 'The document');
  onlyKeys(document, ['config', ...Object.keys(LISTS), CLUSTER], 'the document');
  refuseCluster(document[CLUSTER]);
  const list = (name: List): readonly Wanted[] => listAt(document[name], name).map((item) => wanted(item, name));
  return {
    config: textsAt(document['config'], 'config'),
    storage_pools: list('storage_pools'),
    networks: list('networks'),
    projects: list('projects'),
    profiles: list('profiles'),
  };
}

function parsed(text: string): unknown {
  try {
    return parse(text, { schema: 'failsafe' }) as unknown;
  } catch (error) {
    throw new AppError('invalid', `Not YAML: ${messageOf(error)}`, { cause: error });
  }
}

function refuseCluster(value: unknown): void {
  if (isNothing(value)) return;
  const { enabled } = mapAt(value, CLUSTER);
  if (isNothing(enabled) || enabled === 'false') return;
  throw new AppError('unsupported', 'This engine stands alone: the "cluster" part cannot be applied');
}

function wanted(item: unknown, list: List): Wanted {
  const fields = mapAt(item, `Each of ${list}`);
  const { name, config, devices, ...rest } = fields;
  if (typeof name !== 'string' || name === '') throw new AppError('invalid', `Each of ${list} needs a name`);
  onlyKeys(fields, LISTS[list], `"${name}" of ${list}`);
  return {
    name,
    ...textsAt(rest, `"${name}" of ${list}`),
    ...(config !== undefined && { config: textsAt(config, `config of "${name}"`) }),
    ...(devices !== undefined && { devices: devicesAt(devices, name) }),
  };
}

function devicesAt(value: unknown, owner: string): Readonly<Record<string, Texts>> {
  const devices = Object.entries(mapAt(value, `devices of "${owner}"`));
  return Object.fromEntries(devices.map(([name, device]) => [name, textsAt(device, `device "${name}" of "${owner}"`)]));
}

/** YAML read without types has texts where it would have null. */
const NOTHING: readonly unknown[] = [undefined, null, '', '~', 'null'];

function isNothing(value: unknown): boolean {
  return NOTHING.includes(value);
}

function mapAt(value: unknown, what: string): Readonly<Record<string, unknown>> {
  if (isNothing(value)) return {};
  if (typeof value === 'object' && !Array.isArray(value)) return value as Readonly<Record<string, unknown>>;
  throw new AppError('invalid', `${what} must be a YAML map ("key: value" lines)`);
}

function listAt(value: unknown, what: string): readonly unknown[] {
  if (isNothing(value)) return [];
  if (Array.isArray(value)) return value;
  throw new AppError('invalid', `"${what}" must be a YAML list`);
}

function textsAt(value: unknown, what: string): Texts {
  return Object.fromEntries(
    Object.entries(mapAt(value, what)).map(([key, text]) => {
      if (typeof text !== 'string') throw new AppError('invalid', `"${key}" in ${what} must be a single value`);
      return [key, isNothing(text) ? '' : text];
    }),
  );
}

function onlyKeys(value: object, known: readonly string[], what: string): void {
  const unknown = Object.keys(value).filter((key) => !known.includes(key));
  if (unknown.length > 0) {
    throw new AppError('invalid', `Unknown in ${what}: ${unknown.join(', ')} (known: ${known.join(', ')})`);
  }
}
