// lighter alias: own names for command lines.
import type { Command } from 'commander';
import { AppError } from '#src/lib/errors.ts';
import type { Cli } from '../cli.ts';
import { formatOption } from '../resource.ts';
import { checkFormat, renderList } from '../table.ts';

export function addAliasGroup(program: Command, cli: Cli): void {
  const alias = program.command('alias').description('Manage command aliases');
  alias
    .command('add')
    .description('Add new aliases')
    .argument('<alias>', 'one or more words')
    .argument('<target>', 'what they stand for; @ARGS@ is where further words go')
    .addHelpText(
      'after',
      '\nExamples:\n  lighter alias add list "list -c ns46S"\n  lighter alias add login "exec @ARGS@ -- su -l"',
    )
    .action(async (name: string, target: string) => {
      if (cli.remotes.aliases.has(name)) throw new AppError('conflict', `Alias ${name} already exists`);
      await cli.remotes.setAlias(name, target);
    });
  addList(alias, cli);
  addChanges(alias, cli);
}

function addList(alias: Command, cli: Cli): void {
  alias
    .command('list')
    .alias('ls')
    .description('List aliases')
    .addOption(formatOption())
    .action((options: { readonly format: string }) => {
      const format = checkFormat(options.format);
      const rows = [...cli.remotes.aliases].sort(([a], [b]) => (a < b ? -1 : 1));
      const isTable = format !== 'json' && format !== 'yaml';
      if (!isTable) return cli.terminal.out(renderList([Object.fromEntries(rows)], [], format));
      const columns = [
        { header: 'ALIAS', cell: ([name]: readonly [string, string]) => name },
        { header: 'TARGET', cell: ([, target]: readonly [string, string]) => target },
      ];
      return cli.terminal.out(renderList(rows, columns, format));
    });
}

function addChanges(alias: Command, cli: Cli): void {
  alias
    .command('rename')
    .alias('mv')
    .description('Rename aliases')
    .argument('<old alias>')
    .argument('<new alias>')
    .action(async (name: string, newName: string) => {
      const target = known(cli, name);
      if (cli.remotes.aliases.has(newName)) throw new AppError('conflict', `Alias ${newName} already exists`);
      await cli.remotes.setAlias(name, undefined);
      await cli.remotes.setAlias(newName, target);
    });
  alias
    .command('remove')
    .alias('rm')
    .description('Remove aliases')
    .argument('<alias>')
    .action(async (name: string) => {
      known(cli, name);
      await cli.remotes.setAlias(name, undefined);
    });
}

function known(cli: Cli, name: string): string {
  const target = cli.remotes.aliases.get(name);
  if (target === undefined) throw new AppError('not_found', `Alias ${name} doesn't exist`);
  return target;
}
