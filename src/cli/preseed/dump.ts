// What an engine has, as a preseed document.
import type { EngineClient } from '#src/client/client.ts';
import type { Cli } from '../cli.ts';
import { pick } from '../editing.ts';
import { listOf } from '../resource.ts';
import { LISTS } from './document.ts';

type Fields = Readonly<Record<string, unknown>>;

/** Secrets and what the engine keeps for itself stay out. */
export async function dumpPreseed(cli: Cli, client: EngineClient): Promise<Fields> {
  const [server, networks, pools, projects, profiles] = await Promise.all([
    client.server(cli.signal),
    listOf<Fields>(cli, client, '/1.0/networks'),
    listOf<Fields>(cli, client, '/1.0/storage-pools'),
    listOf<Fields>(cli, client, '/1.0/projects'),
    listOf<Fields>(cli, client, '/1.0/profiles'),
  ]);
  const config = Object.entries(server.config ?? {}).filter(([key]) => key !== 'core.trust_password');
  const managed = networks.filter((network) => network['managed'] === true);
  return {
    config: Object.fromEntries(config),
    networks: managed.map((network) => portable(network, LISTS.networks)),
    storage_pools: pools.map((pool) => portable(pool, LISTS.storage_pools)),
    projects: projects.map((project) => portable(project, LISTS.projects)),
    profiles: profiles.map((profile) => portable(profile, LISTS.profiles)),
  };
}

function portable(value: Fields, fields: readonly string[]): Fields {
  const config = Object.entries((value['config'] ?? {}) as Fields).filter(([key]) => !key.startsWith('volatile.'));
  return { ...pick(value, fields), config: Object.fromEntries(config) };
}
