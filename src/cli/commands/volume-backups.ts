// lighter storage volume export and import: a custom volume as one file.
import { createReadStream } from 'node:fs';
import { basename } from 'node:path';
import type { Command } from 'commander';
import type { Cli } from '../cli.ts';
import { url } from '../resource.ts';
import { saveNew } from '../save.ts';
import { parseVolume, volumePath } from '../volume-name.ts';

/** An engine removes what a client that went away left there. */
const KEPT_MS = 24 * 3600_000;

interface ExportOptions {
  readonly compression?: string;
  readonly optimizedStorage?: boolean;
  readonly volumeOnly?: boolean;
}

export function addVolumeBackups(volume: Command, cli: Cli): void {
  volume
    .command('export')
    .description('Export custom storage volume')
    .argument('<pool>')
    .argument('<volume>')
    .argument('[file]', 'by itself VOLUME.backup; - is standard output')
    .option('--compression <algorithm>', 'Compression algorithm to use (none for uncompressed)')
    .option('--optimized-storage', 'Use storage driver optimized format (can only be restored on a similar pool)')
    .option('--volume-only', 'Export the volume without its snapshots')
    .addHelpText('after', '\nExample:\n  lighter storage volume export default data data.tar.gz')
    .action(async (pool: string, name: string, file: string | undefined, options: ExportOptions) => {
      await exportVolume(cli, { pool, name, target: file ?? `${name}.backup` }, options);
      if (file !== '-') cli.say('Backup exported successfully!');
    });
  volume
    .command('import')
    .description('Import backups of custom volumes including their snapshots')
    .argument('<pool>')
    .argument('<backup file>')
    .argument('[volume]', 'name; by itself that of the backup')
    .addHelpText('after', '\nExample:\n  lighter storage volume import default data.tar.gz data2')
    .action(async (text: string, file: string, name: string | undefined) => {
      const { client, name: pool } = await cli.at(text);
      const own = name === undefined ? {} : { 'X-LXD-name': name, 'X-Incus-name': name };
      const headers = { ...own, 'Content-Type': 'application/octet-stream' };
      await cli.finish(
        client.operations.start('POST', url('storage-pools', pool, 'volumes', 'custom'), {
          ...cli.call,
          body: createReadStream(file),
          headers,
          idleTimeoutMs: 0,
        }),
      );
    });
}

async function exportVolume(
  cli: Cli,
  { pool, name, target }: { readonly pool: string; readonly name: string; readonly target: string },
  options: ExportOptions,
): Promise<void> {
  const { client, name: poolName } = await cli.at(pool);
  const path = `${volumePath(poolName, parseVolume(name))}/backups`;
  const body = {
    name: '',
    expires_at: new Date(Date.now() + KEPT_MS).toISOString(),
    volume_only: options.volumeOnly === true,
    optimized_storage: options.optimizedStorage === true,
    compression_algorithm: options.compression ?? '',
  };
  const ended = await cli.finish(client.operations.start('POST', path, { ...cli.call, body }));
  const made = Object.values(ended.resources ?? {}).flatMap((urls) => urls ?? []);
  const backup = `${path}/${basename(made.find((text) => text.includes('/backups/')) ?? made[0] ?? '')}`;
  try {
    await saveNew(cli, await client.raw(`${backup}/export`, { signal: cli.signal }), target);
  } finally {
    await (await client.operations.start('DELETE', backup, {})).wait(AbortSignal.timeout(60_000));
  }
}
