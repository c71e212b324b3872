// lighter export and import: an instance as one file.
import { createReadStream } from 'node:fs';
import type { Readable } from 'node:stream';
import type { Command } from 'commander';
import type { BackupOptions } from '#src/client/backups.ts';
import type { EngineClient } from '#src/client/client.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Cli } from '../cli.ts';
import { remoteFirst } from '../resource.ts';
import { saveNew } from '../save.ts';

interface ExportOptions {
  readonly instanceOnly?: boolean;
  readonly optimizedStorage?: boolean;
  readonly compression?: string;
}

export function addBackupCommands(program: Command, cli: Cli): void {
  program
    .command('export')
    .description('Export instance backups')
    .argument('<instance>')
    .argument('[target]', 'file; by itself INSTANCE.backup; - is standard output')
    .option('--instance-only', 'Whether or not to only backup the instance (without snapshots)')
    .option('--optimized-storage', 'Use storage driver optimized format (can only be restored on a similar pool)')
    .option('--compression <algorithm>', 'Compression algorithm to use (none for uncompressed)')
    .addHelpText(
      'after',
      '\nExamples:\n  lighter export web web.tar.gz\n  lighter export web - --compression none | tar t',
    )
    .action(async (instance: string, target: string | undefined, options: ExportOptions) => {
      const { client, name } = await cli.at(instance);
      const wanted = {
        instanceOnly: options.instanceOnly === true,
        optimized: options.optimizedStorage === true,
        compression: options.compression ?? '',
      };
      await exportInstance(cli, client, { name, target: target ?? `${name}.backup`, ...wanted });
      if (target !== '-') cli.say('Backup exported successfully!');
    });
  program
    .command('import')
    .description('Import instance backups')
    .argument('<word...>', 'file, and a name; by itself that of the backup')
    .option('-s, --storage <pool>', 'Storage pool name')
    .usage('[options] [remote:] <backup file> [instance]')
    .addHelpText('after', '\nExamples:\n  lighter import web.tar.gz\n  lighter import web.tar.gz web2 -s fast')
    .action(async (words: readonly string[], options: { readonly storage?: string }) => {
      const [remote, [file, name = '']] = remoteFirst(words);
      if (file === undefined) throw new AppError('invalid', 'A backup file is needed');
      const { client } = await cli.at(remote);
      const content = createReadStream(file);
      await cli.finish(client.backups.import(content, { ...cli.call, name, pool: options.storage ?? '' }));
    });
}

async function exportInstance(
  cli: Cli,
  client: EngineClient,
  { name, target, ...options }: BackupOptions & { readonly name: string; readonly target: string },
): Promise<void> {
  const use = (content: Readable): Promise<void> => saveNew(cli, content, target);
  const { api_extensions: extensions } = await client.server(cli.signal);
  if (extensions.includes('direct_backup')) return use(await client.backups.stream(name, options, cli.signal));
  return client.backups.fetch(name, options, { ...cli.call, use });
}
