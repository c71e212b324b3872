// lighter image alias: names of images.
import type { Command } from 'commander';
import type { ImageAliasEntry } from '#src/client/wire.ts';
import type { Cli } from '../cli.ts';
import { byNaturalName } from '../format.ts';
import { formatOption, remoteFirst } from '../resource.ts';
import { checkFormat, type Column, renderList } from '../table.ts';

const COLUMNS: readonly Column<ImageAliasEntry>[] = [
  { header: 'ALIAS', cell: ({ name }) => name },
  { header: 'FINGERPRINT', cell: ({ target }) => target.slice(0, 12) },
  { header: 'TYPE', cell: ({ type }) => type.toUpperCase() },
  { header: 'DESCRIPTION', cell: ({ description }) => description },
];

export function addAliasCommands(image: Command, cli: Cli): void {
  const alias = image.command('alias').description('Manage image aliases');
  alias
    .command('create')
    .description('Create aliases for existing images')
    .argument('<alias>')
    .argument('<fingerprint>')
    .option('--description <text>', 'Image alias description', '')
    .action(async (text: string, target: string, { description }: { description: string }) => {
      const { client, name } = await cli.at(text);
      const { fingerprint } = await client.images.get(target, cli.signal);
      await client.images.createAlias({ name, target: fingerprint, description }, cli.signal);
    });
  alias
    .command('delete')
    .alias('rm')
    .description('Delete image aliases')
    .argument('<alias>')
    .action(async (text: string) => {
      const { client, name } = await cli.at(text);
      await client.images.removeAlias(name, cli.signal);
    });
  alias
    .command('rename')
    .description('Rename aliases')
    .argument('<alias>')
    .argument('<new-name>')
    .action(async (text: string, newName: string) => {
      const { client, name } = await cli.at(text);
      await client.images.renameAlias(name, newName, cli.signal);
    });
  addAliasList(alias, cli);
}

function addAliasList(alias: Command, cli: Cli): void {
  alias
    .command('list')
    .alias('ls')
    .description('List image aliases')
    .usage('[options] [remote:] [filter...]')
    .argument('[filter...]', 'parts of names or fingerprints')
    .addOption(formatOption())
    .action(async (words: readonly string[], options: { format: string }) => {
      const format = checkFormat(options.format);
      const [remote, filters] = remoteFirst(words);
      const { client } = await cli.at(remote);
      const aliases = (await client.images.listAliases(cli.signal)).filter(({ name, target }) =>
        filters.every((filter) => name.includes(filter) || target.startsWith(filter)),
      );
      const ordered = [...aliases].sort((a, b) => byNaturalName(a.name, b.name));
      cli.terminal.out(renderList(ordered, COLUMNS, format));
    });
}
