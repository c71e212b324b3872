// lighter storage volume: volumes of a pool.
import { type Command, Option } from 'commander';
import type { EngineClient } from '#src/client/client.ts';
import type { StorageVolume, StorageVolumeSnapshot, StorageVolumeState } from '#src/client/wire.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import { type Cli, keyValue } from '../cli.ts';
import { formatBytes, formatTime } from '../format.ts';
import { addEdit, addKeys, addShow, formatOption, listOf, place, send, url } from '../resource.ts';
import { checkFormat, chooseColumns, type ColumnSet, renderList, renderTable } from '../table.ts';
import { parseVolume, VOLUME_KIND, volumePath } from '../volume-name.ts';
import { addVolumeAttachment } from './volume-attachment.ts';
import { addVolumeBackups } from './volume-backups.ts';
import { addVolumeCopies } from './volume-copies.ts';
import { addVolumeSnapshots } from './volume-snapshots.ts';

const COLUMNS: ColumnSet<StorageVolume> = {
  c: { header: 'CONTENT-TYPE', cell: ({ content_type }) => content_type },
  d: { header: 'DESCRIPTION', cell: ({ description }) => description },
  e: { header: 'PROJECT', cell: ({ project }) => project ?? 'default' },
  L: { header: 'LOCATION', cell: ({ location }) => location },
  n: { header: 'NAME', cell: ({ name }) => name },
  t: { header: 'TYPE', cell: ({ name, type }) => (name.includes('/') ? `${type} (snapshot)` : type) },
  u: { header: 'USED BY', cell: ({ used_by }) => String(used_by?.length ?? 0) },
};
const DEFAULT_COLUMNS = 'tndcu';

interface ListOptions {
  readonly allProjects?: boolean;
  readonly columns: string;
  readonly format: string;
}

export function addVolumeCommands(storage: Command, cli: Cli): void {
  const volume = storage.command('volume').description('Manage storage volumes');
  addList(volume, cli);
  addCreate(volume, cli);
  addDelete(volume, cli);
  addShow(volume, cli, VOLUME_KIND);
  addEdit(volume, cli, VOLUME_KIND);
  addKeys(volume, cli, VOLUME_KIND);
  addInfo(volume, cli);
  addVolumeSnapshots(volume, cli);
  addVolumeAttachment(volume, cli);
  addVolumeCopies(volume, cli);
  addVolumeBackups(volume, cli);
}

function addCreate(volume: Command, cli: Cli): void {
  volume
    .command('create')
    .description('Create new custom storage volumes')
    .argument('<pool>')
    .argument('<volume>')
    .argument('[key=value...]')
    .option('--type <type>', 'Content type, block or filesystem', 'filesystem')
    .addHelpText('after', '\nExample:\n  lighter storage volume create default data size=10GiB')
    .action(async (pool: string, name: string, pairs: readonly string[], { type }: { readonly type: string }) => {
      const { client, name: poolName } = await cli.at(pool);
      const config = Object.fromEntries(pairs.map(keyValue));
      const body = { name, type: 'custom', content_type: type, description: '', config };
      await send(cli, client, { method: 'POST', path: url('storage-pools', poolName, 'volumes', 'custom'), body });
      cli.say(`Storage volume ${name} created`);
    });
}

function addDelete(volume: Command, cli: Cli): void {
  volume
    .command('delete')
    .alias('rm')
    .description('Delete storage volumes')
    .argument('<pool>')
    .argument('<volume[/snapshot]>')
    .addHelpText(
      'after',
      '\nExamples:\n  lighter storage volume delete default data\n  lighter storage volume delete default data/snap0',
    )
    .action(async (pool: string, name: string) => {
      const { client, path } = await place(cli, VOLUME_KIND, [pool, name]);
      await send(cli, client, { method: 'DELETE', path });
      cli.say(`Storage volume ${name} deleted`);
    });
}

function addList(volume: Command, cli: Cli): void {
  volume
    .command('list')
    .alias('ls')
    .description('List storage volumes')
    .argument('<pool>')
    .argument('[filter...]', 'a name, or key=value of type, content_type, config.KEY …')
    .option('--all-projects', 'All projects')
    .addOption(new Option('-c, --columns <columns>', 'Columns').default(DEFAULT_COLUMNS))
    .addOption(formatOption())
    .addHelpText(
      'after',
      '\nExamples:\n  lighter storage volume list default\n  lighter storage volume list default type=custom',
    )
    .action(async (text: string, filters: readonly string[], options: ListOptions) => {
      const format = checkFormat(options.format);
      const columns = chooseColumns(options.allProjects === true ? `e${options.columns}` : options.columns, COLUMNS);
      const { client, name } = await cli.at(text);
      const filter = filters.map(clause).join(' and ');
      const query = {
        recursion: 1,
        ...(filter !== '' && { filter }),
        ...(options.allProjects === true && { 'all-projects': 'true', project: undefined }),
      };
      const path = url('storage-pools', name, 'volumes');
      const { envelope } = await client.request('GET', path, { query, signal: cli.signal });
      const volumes = [...((envelope.metadata ?? []) as readonly StorageVolume[])].sort(byTypeAndName);
      cli.terminal.out(renderList(volumes, columns, format));
    });
}

function clause(filter: string): string {
  if (!filter.includes('=')) return `name eq ${filter}`;
  const [key, value] = keyValue(filter);
  return `${key} eq ${value}`;
}

function byTypeAndName(a: StorageVolume, b: StorageVolume): number {
  const [left, right] = [`${a.type} ${a.name}`, `${b.type} ${b.name}`];
  if (left === right) return 0;
  return left < right ? -1 : 1;
}

function addInfo(volume: Command, cli: Cli): void {
  volume
    .command('info')
    .description('Show storage volume state information')
    .argument('<pool>')
    .argument('<volume>')
    .addHelpText('after', '\nExample:\n  lighter storage volume info default data')
    .action(async (pool: string, name: string) => {
      const { client, name: poolName } = await cli.at(pool);
      const parsed = parseVolume(name);
      if (parsed.snapshot !== undefined) {
        throw new AppError('invalid', 'A snapshot has no state of its own; storage volume show shows it');
      }
      const path = volumePath(poolName, parsed);
      const { envelope } = await client.request('GET', path, { signal: cli.signal });
      const snapshots = await listOf<StorageVolumeSnapshot>(cli, client, `${path}/snapshots`);
      const lines = infoLines(envelope.metadata as StorageVolume, await stateOf(cli, client, path));
      for (const line of lines) cli.print(line);
      if (snapshots.length > 0) cli.terminal.out(snapshotTable(snapshots));
    });
}

/** Not every pool can tell what a volume takes. */
async function stateOf(cli: Cli, client: EngineClient, path: string): Promise<StorageVolumeState> {
  try {
    const { envelope } = await client.request('GET', `${path}/state`, { signal: cli.signal });
    return envelope.metadata as StorageVolumeState;
  } catch (error) {
    if (/not supported$/i.test(messageOf(error).trim())) return {};
    throw error;
  }
}

function infoLines(volume: StorageVolume, { usage }: StorageVolumeState): readonly string[] {
  const created = formatTime(volume.created_at ?? '');
  return [
    `Name: ${volume.name}`,
    ...(volume.description === '' ? [] : [`Description: ${volume.description}`]),
    `Type: ${volume.type}`,
    `Content type: ${volume.content_type}`,
    ...(usage ? [`Usage: ${formatBytes(usage.used)}`] : []),
    ...((usage?.total ?? 0) > 0 ? [`Total: ${formatBytes(usage?.total ?? 0)}`] : []),
    ...(created === undefined ? [] : [`Created: ${created}`]),
  ];
}

function snapshotTable(snapshots: readonly StorageVolumeSnapshot[]): string {
  const rows = snapshots.map(({ name, description, created_at, expires_at }) => [
    name.slice(name.lastIndexOf('/') + 1),
    description,
    formatTime(created_at ?? '') ?? '',
    formatTime(expires_at ?? '') ?? '',
  ]);
  return `\nSnapshots:\n${renderTable(['NAME', 'DESCRIPTION', 'TAKEN AT', 'EXPIRES AT'], rows)}`;
}
