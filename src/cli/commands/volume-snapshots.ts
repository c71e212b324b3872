// lighter storage volume snapshot, restore, rename.
import type { Command } from 'commander';
import { AppError } from '#src/lib/errors.ts';
import type { Cli } from '../cli.ts';
import { listOf, send } from '../resource.ts';
import { parseVolume, volumePath } from '../volume-name.ts';

const NO_EXPIRY = '0001-01-01T00:00:00Z';

interface SnapshotOptions {
  readonly expiry: boolean;
  readonly reuse?: boolean;
}

export function addVolumeSnapshots(volume: Command, cli: Cli): void {
  volume
    .command('snapshot')
    .description('Snapshot storage volumes')
    .argument('<pool>')
    .argument('<volume>')
    .argument('[snapshot]', 'absent: by snapshots.pattern, or snap0, snap1 …')
    .option('--no-expiry', 'Ignore any configured auto-expiry for the storage volume')
    .option('--reuse', 'If the snapshot name already exists, delete and create a new one')
    .addHelpText('after', '\nExample:\n  lighter storage volume snapshot default data before-upgrade')
    .action(async (pool: string, text: string, snapshot: string | undefined, options: SnapshotOptions) => {
      const { client, name: poolName } = await cli.at(pool);
      const path = `${volumePath(poolName, parseVolume(text))}/snapshots`;
      if (options.reuse === true && snapshot !== undefined) {
        const known = await listOf<{ readonly name: string }>(cli, client, path);
        if (known.some(({ name }) => name.endsWith(`/${snapshot}`) || name === snapshot)) {
          await send(cli, client, { method: 'DELETE', path: `${path}/${encodeURIComponent(snapshot)}` });
        }
      }
      const body = { name: snapshot ?? '', ...(!options.expiry && { expires_at: NO_EXPIRY }) };
      await send(cli, client, { method: 'POST', path, body });
    });
  volume
    .command('restore')
    .description('Restore storage volume snapshots')
    .argument('<pool>')
    .argument('<volume>')
    .argument('<snapshot>')
    .addHelpText('after', '\nExample:\n  lighter storage volume restore default data before-upgrade')
    .action(async (pool: string, text: string, restore: string) => {
      const { client, name } = await cli.at(pool);
      await send(cli, client, { method: 'PUT', path: volumePath(name, parseVolume(text)), body: { restore } });
    });
  addRename(volume, cli);
}

function addRename(volume: Command, cli: Cli): void {
  volume
    .command('rename')
    .description('Rename storage volumes and their snapshots')
    .argument('<pool>')
    .argument('<name[/snapshot]>')
    .argument('<new name[/snapshot]>')
    .addHelpText(
      'after',
      '\nExamples:\n  lighter storage volume rename default data archive\n  lighter storage volume rename default data/snap0 data/first',
    )
    .action(async (pool: string, from: string, to: string) => {
      const { client, name: poolName } = await cli.at(pool);
      const [source, target] = [parseVolume(from), parseVolume(to)];
      const isSnapshot = source.snapshot !== undefined;
      if (isSnapshot !== (target.snapshot !== undefined)) {
        throw new AppError('invalid', 'A volume becomes a volume and a snapshot a snapshot');
      }
      if (isSnapshot && source.name !== target.name) {
        throw new AppError('invalid', 'Invalid new snapshot name, parent volume must be the same as source');
      }
      const name = isSnapshot ? target.snapshot : target.name;
      await send(cli, client, { method: 'POST', path: volumePath(poolName, source), body: { name } });
      cli.say(`Renamed storage volume${isSnapshot ? ' snapshot' : ''} from "${from}" to "${to}"`);
    });
}
