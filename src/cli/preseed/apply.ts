// Applies a preseed document: makes what is missing, changes what is there, puts everything back when a step fails.
import { isDeepStrictEqual } from 'node:util';
import type { EngineClient } from '#src/client/client.ts';
import { AppError, kindOf } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { Cli } from '../cli.ts';
import { read, send, url } from '../resource.ts';
import type { Preseed, Wanted } from './document.ts';

type Fields = Readonly<Record<string, unknown>>;

interface Part {
  /** Of the API, below /1.0. */
  readonly kind: 'networks' | 'profiles' | 'projects' | 'storage-pools';
  readonly noun: string;
  /** What stays as it was made. */
  readonly fixed: readonly ('driver' | 'type')[];
  /** Keys that say how a thing is made, and nothing afterwards. */
  readonly creation: readonly string[];
}

const POOLS: Part = { kind: 'storage-pools', noun: 'Storage pool', fixed: ['driver'], creation: ['source', 'size'] };
const NETWORKS: Part = { kind: 'networks', noun: 'Network', fixed: ['type'], creation: [] };
const PROJECTS: Part = { kind: 'projects', noun: 'Project', fixed: [], creation: [] };
const PROFILES: Part = { kind: 'profiles', noun: 'Profile', fixed: [], creation: [] };

const DEFAULT_PROJECT = 'default';

/** A password that is set reads as `true`. */
const SECRET = 'core.trust_password';

interface Scene {
  readonly cli: Cli;
  readonly remote: string;
  readonly reverter: Reverter;
}

/** Rejects with what the engine said; by then what was done is undone. Applied twice, the second time changes nothing. */
export async function applyPreseed(cli: Cli, remote: string, preseed: Preseed): Promise<void> {
  await using reverter = new Reverter({
    warn: (message, meta) => cli.terminal.err(`Warning: ${message}: ${JSON.stringify(meta)}\n`),
  });
  const scene = { cli, remote, reverter };
  const inDefault = ({ project = DEFAULT_PROJECT }: Wanted): boolean => project === DEFAULT_PROJECT;
  const others = preseed.networks.filter((network) => !inDefault(network));
  await applyConfig(scene, preseed.config);
  await applyAll(scene, POOLS, preseed.storage_pools);
  await applyAll(scene, NETWORKS, preseed.networks.filter(inDefault));
  await applyAll(scene, PROJECTS, preseed.projects);
  await applyAll(scene, NETWORKS, others);
  await applyAll(scene, PROFILES, preseed.profiles);
  reverter.commit();
}

async function applyConfig({ cli, remote, reverter }: Scene, config: Readonly<Record<string, string>>): Promise<void> {
  if (Object.keys(config).length === 0) return;
  const client = await cli.client(remote, DEFAULT_PROJECT);
  const before = (await client.server(cli.signal)).config ?? {};
  const old = Object.keys(config)
    .filter((key) => key !== SECRET || before[key] === undefined)
    .map((key) => [key, before[key] ?? '']);
  reverter.add('configuration of the engine', async () => patchConfig(client, Object.fromEntries(old) as Fields));
  await patchConfig(client, config, cli.signal);
  cli.say(`Configuration of the engine: ${Object.keys(config).join(', ')}`);
}

async function patchConfig(client: EngineClient, config: Fields, signal?: AbortSignal): Promise<void> {
  await client.request('PATCH', '/1.0', { body: { config }, signal });
}

async function applyAll(scene: Scene, part: Part, things: readonly Wanted[]): Promise<void> {
  for (const thing of things) await applyOne(scene, part, thing);
}

async function applyOne({ cli, remote, reverter }: Scene, part: Part, thing: Wanted): Promise<void> {
  const { project = DEFAULT_PROJECT, ...body } = thing;
  const client = await cli.client(remote, project);
  const path = url(part.kind, body.name);
  const step = `${part.noun.toLowerCase()} ${body.name}`;
  const before = await found(cli, client, path);
  if (before === undefined) {
    await send(cli, client, { method: 'POST', path: url(part.kind), body });
    reverter.add(step, async () => client.request('DELETE', path));
    cli.say(`${part.noun} ${body.name} created`);
    return;
  }
  const old = settable(before);
  const wanted = merged(old, changes(part, thing, before));
  if (isDeepStrictEqual(wanted, old)) return;
  reverter.add(step, async () => client.request('PUT', path, { body: old }));
  await send(cli, client, { method: 'PUT', path, body: wanted });
  cli.say(`${part.noun} ${body.name} updated`);
}

async function found(cli: Cli, client: EngineClient, path: string): Promise<Fields | undefined> {
  try {
    return (await read(cli, { client, path })).value;
  } catch (error) {
    if (kindOf(error) === 'not_found') return undefined;
    throw error;
  }
}

interface Settable {
  readonly description: string;
  readonly config: Readonly<Record<string, string>>;
  readonly devices?: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

function settable({ config, description, devices }: Fields): Settable {
  return {
    config: (config ?? {}) as Settable['config'],
    description: typeof description === 'string' ? description : '',
    ...(devices !== undefined && { devices: devices as NonNullable<Settable['devices']> }),
  };
}

/** AppError 'conflict' for a thing of another kind under this name. */
function changes({ fixed, creation, noun }: Part, thing: Wanted, before: Fields): Wanted {
  for (const field of fixed) {
    const wanted = thing[field];
    if (wanted === undefined || wanted === '' || wanted === before[field]) continue;
    throw new AppError(
      'conflict',
      `${noun} ${thing.name} is there with ${field} "${String(before[field])}", not "${wanted}": ` +
        'delete it first, or choose another name',
    );
  }
  const config = Object.entries(thing.config ?? {}).filter(([key]) => !creation.includes(key));
  return { ...thing, config: Object.fromEntries(config) };
}

/** Keys and devices are added to those that are there. */
function merged(old: Settable, { config, description, devices }: Wanted): Settable {
  return {
    config: { ...old.config, ...config },
    description: description ?? old.description,
    ...(old.devices !== undefined && { devices: { ...old.devices, ...devices } }),
  };
}
