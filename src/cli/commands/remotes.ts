// lighter remote: other engines, and image servers.
import type { Command } from 'commander';
import { AppError } from '#src/lib/errors.ts';
import type { Cli } from '../cli.ts';
import type { Remote } from '../remotes.ts';
import { formatOption } from '../resource.ts';
import { checkFormat, type Column, renderList } from '../table.ts';
import { addRemoteAdd } from './remote-add.ts';

type Row = Remote & { readonly name: string; readonly isDefault: boolean; readonly isStatic: boolean };

const COLUMNS: readonly Column<Row>[] = [
  { header: 'NAME', cell: ({ name, isDefault }) => (isDefault ? `${name} (current)` : name) },
  { header: 'URL', cell: ({ addr }) => addr },
  { header: 'PROTOCOL', cell: ({ protocol }) => protocol ?? 'lxd' },
  { header: 'AUTH TYPE', cell: authType },
  { header: 'PUBLIC', cell: (row) => (row.public ? 'YES' : 'NO') },
  { header: 'STATIC', cell: ({ isStatic }) => (isStatic ? 'YES' : 'NO') },
  { header: 'GLOBAL', cell: () => 'NO' },
];

function authType({ addr, protocol, auth_type: type }: Row): string {
  if (addr.startsWith('unix:')) return 'file access';
  if (protocol === 'simplestreams') return 'none';
  return type ?? 'tls';
}

export function addRemoteCommands(program: Command, cli: Cli): void {
  const remote = program.command('remote').description('Manage the list of remote servers');
  addRemoteAdd(remote, cli);
  remote
    .command('list')
    .alias('ls')
    .description('List the available remotes')
    .addOption(formatOption())
    .action((options: { readonly format: string }) => {
      const format = checkFormat(options.format);
      const rows = [...cli.remotes.all].map(([name, fields]) => ({
        ...fields,
        name,
        isDefault: name === cli.remotes.defaultName,
        isStatic: cli.remotes.isStatic(name),
      }));
      rows.sort((a, b) => (a.name < b.name ? -1 : 1));
      cli.terminal.out(renderList<Row>(rows, COLUMNS, format));
    });
  remote
    .command('get-default')
    .description('Show the default remote')
    .action(() => cli.print(cli.remotes.defaultName));
  remote
    .command('switch')
    .alias('set-default')
    .description('Switch the default remote')
    .argument('<remote>')
    .addHelpText('after', '\nExample:\n  lighter remote switch other')
    .action(async (name: string) => cli.remotes.setDefault(bare(name)));
  addChanges(remote, cli);
}

function addChanges(remote: Command, cli: Cli): void {
  remote
    .command('rename')
    .alias('mv')
    .description('Rename remotes')
    .argument('<remote>')
    .argument('<new-name>')
    .action(async (text: string, newText: string) => {
      const [name, newName] = [bare(text), bare(newText)];
      const fields = changeable(cli, name);
      if (cli.remotes.all.has(newName)) throw new AppError('conflict', `Remote ${newName} already exists`);
      await cli.remotes.rename(name, newName, fields);
    });
  remote
    .command('remove')
    .alias('rm')
    .description('Remove remotes')
    .argument('<remote>')
    .action(async (text: string) => {
      const name = bare(text);
      changeable(cli, name);
      if (name === cli.remotes.defaultName) throw new AppError('invalid', "Can't remove the default remote");
      await cli.remotes.remove(name);
    });
  remote
    .command('set-url')
    .description('Set the URL for the remote')
    .argument('<remote>')
    .argument('<url>')
    .addHelpText('after', '\nExample:\n  lighter remote set-url other https://10.0.0.2:8443')
    .action(async (text: string, addr: string) => {
      const name = bare(text);
      await cli.remotes.set(name, { ...changeable(cli, name), addr });
    });
}

/** `other:` is `other`. */
function bare(text: string): string {
  return text.replace(/:$/, '');
}

function changeable(cli: Cli, name: string): Remote {
  const found = cli.remotes.get(name);
  if (cli.remotes.isStatic(name)) throw new AppError('invalid', `Remote ${name} is static and cannot be modified`);
  return found;
}
