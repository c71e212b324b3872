// lighter storage: pools.
import type { Command } from 'commander';
import type { StoragePool } from '#src/client/wire.ts';
import { type Cli, keyValue } from '../cli.ts';
import { formatBytes, formatYaml } from '../format.ts';
import { POOL_KIND } from '../kinds.ts';
import { addDelete, addEdit, addKeys, addListing, listOf, place, read, send, shownFields } from '../resource.ts';
import { addVolumeCommands } from './volumes.ts';

export function addStorageCommands(program: Command, cli: Cli): void {
  const storage = program.command('storage').description('Manage storage pools and volumes');
  addListing(storage, cli, {
    description: 'List available storage pools',
    columns: [
      { header: 'NAME', cell: ({ name }: StoragePool) => name },
      { header: 'DRIVER', cell: ({ driver }) => driver },
      { header: 'SOURCE', cell: ({ config }) => config['source'] ?? '' },
      { header: 'DESCRIPTION', cell: ({ description }) => description },
      { header: 'USED BY', cell: ({ used_by }) => String(used_by?.length ?? 0) },
      { header: 'STATE', cell: ({ status }) => status.toUpperCase() },
    ],
    load: async (client) => listOf<StoragePool>(cli, client, '/1.0/storage-pools'),
    by: ({ name }) => name,
  });
  storage
    .command('create')
    .description('Create storage pools')
    .argument('<pool>')
    .argument('<driver>', 'overlay, dir, zfs, btrfs …')
    .argument('[key=value...]')
    .addHelpText('after', '\nExample:\n  lighter storage create fast zfs source=tank/lighter')
    .action(async (text: string, driver: string, pairs: readonly string[]) => {
      const { client, name } = await cli.at(text);
      const body = { name, driver, description: '', config: Object.fromEntries(pairs.map(keyValue)) };
      await send(cli, client, { method: 'POST', path: '/1.0/storage-pools', body });
      cli.say(`Storage pool ${name} created`);
    });
  addInfo(storage, cli);
  addShowPool(storage, cli);
  addEdit(storage, cli, POOL_KIND);
  addKeys(storage, cli, POOL_KIND);
  addDelete(storage, cli, POOL_KIND);
  addVolumeCommands(storage, cli);
}

function addShowPool(storage: Command, cli: Cli): void {
  storage
    .command('show')
    .description('Show storage pool configurations and resources')
    .argument('<pool>')
    .option('--resources', 'Show the resources available to the storage pool')
    .addHelpText('after', '\nExample:\n  lighter storage show default')
    .action(async (text: string, { resources = false }: { readonly resources?: boolean }) => {
      const where = await place(cli, POOL_KIND, [text]);
      const [name = ''] = where.names;
      if (resources) cli.terminal.out(formatYaml(await where.client.storagePools.resources(name, cli.signal)));
      else cli.terminal.out(formatYaml(shownFields(POOL_KIND, (await read(cli, where)).value)));
    });
}

function addInfo(storage: Command, cli: Cli): void {
  storage
    .command('info')
    .description('Show useful information about storage pools')
    .argument('<pool>')
    .option('--bytes', 'Show the used and free space in bytes')
    .addHelpText('after', '\nExample:\n  lighter storage info default')
    .action(async (text: string, options: { readonly bytes?: boolean }) => {
      const { client, name } = await cli.at(text);
      const { description, driver, used_by } = await client.storagePools.get(name, cli.signal);
      const { space } = await client.storagePools.resources(name, cli.signal);
      const amount = options.bytes === true ? String : formatBytes;
      cli.terminal.out(
        formatYaml({
          info: { description, driver, name, 'space used': amount(space.used), 'total space': amount(space.total) },
          'used by': usersByKind(used_by ?? []),
        }),
      );
    });
}

/** /1.0/instances/c1 → { instances: [c1] } */
function usersByKind(urls: readonly string[]): Record<string, readonly string[]> {
  const kinds: Record<string, string[]> = {};
  for (const url of urls) {
    const [, , kind = '', ...rest] = (url.split('?')[0] ?? '').split('/');
    const isVolume = kind === 'storage-pools' && rest[1] === 'volumes';
    const name = isVolume ? rest.slice(3) : rest;
    (kinds[isVolume ? 'volumes' : kind] ??= []).push(decodeURIComponent(name.join('/')));
  }
  return Object.fromEntries(Object.entries(kinds).sort(([a], [b]) => (a < b ? -1 : 1)));
}
