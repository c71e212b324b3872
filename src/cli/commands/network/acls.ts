// lighter network acl: which traffic instances may have.
import type { Command } from 'commander';
import { AppError } from '#src/lib/errors.ts';
import { type Cli, keyValue } from '../../cli.ts';
import {
  addDelete,
  addEdit,
  addKeys,
  addListing,
  addRename,
  addShow,
  change,
  listOf,
  place,
  send,
} from '../../resource.ts';
import { ACL_KIND } from './kinds.ts';

type Rule = Readonly<Record<string, string>>;

interface Acl {
  readonly name: string;
  readonly description: string;
  readonly used_by: readonly string[] | null;
}

const DIRECTIONS = ['ingress', 'egress'];

export function addAclCommands(network: Command, cli: Cli): void {
  const acl = network.command('acl').description('Manage network ACLs');
  addList(acl, cli);
  addCreate(acl, cli);
  addShow(acl, cli, ACL_KIND);
  addEdit(acl, cli, ACL_KIND);
  addKeys(acl, cli, ACL_KIND);
  addRename(acl, cli, ACL_KIND);
  addDelete(acl, cli, ACL_KIND);
  addRules(acl, cli);
}

function addList(acl: Command, cli: Cli): void {
  addListing(acl, cli, {
    description: 'List available network ACLs',
    columns: [
      { header: 'NAME', cell: ({ name }: Acl) => name },
      { header: 'DESCRIPTION', cell: ({ description }) => description },
      { header: 'USED BY', cell: ({ used_by }) => String(used_by?.length ?? 0) },
    ],
    load: async (client) => listOf<Acl>(cli, client, '/1.0/network-acls'),
    by: ({ name }) => name,
  });
}

function addCreate(acl: Command, cli: Cli): void {
  acl
    .command('create')
    .description('Create new network ACLs')
    .argument('<acl>')
    .argument('[key=value...]')
    .addHelpText('after', '\nExample:\n  lighter network acl create web user.owner=alice')
    .action(async (text: string, pairs: readonly string[]) => {
      const { client, name } = await cli.at(text);
      const body = { name, config: Object.fromEntries(pairs.map(keyValue)) };
      await send(cli, client, { method: 'POST', path: '/1.0/network-acls', body });
      cli.say(`Network ACL ${name} created`);
    });
  acl
    .command('show-log')
    .description('Show network ACL log')
    .argument('<acl>')
    .action(async (text: string) => {
      const { client, path } = await place(cli, ACL_KIND, [text]);
      for await (const chunk of await client.raw(`${path}/log`, { signal: cli.signal })) {
        cli.terminal.out(String(chunk));
      }
    });
}

function addRules(acl: Command, cli: Cli): void {
  const rule = acl.command('rule').description('Manage network ACL rules');
  rule
    .command('add')
    .description('Add rules to an ACL')
    .argument('<acl>')
    .argument('<direction>', DIRECTIONS.join(' or '))
    .argument('<key=value...>')
    .addHelpText(
      'after',
      '\nExample:\n  lighter network acl rule add web ingress action=allow protocol=tcp destination_port=80,443',
    )
    .action(async (text: string, way: string, pairs: readonly string[]) => {
      const added = { state: 'enabled', ...Object.fromEntries(pairs.map(keyValue)) };
      await changeRules(cli, text, way, (rules) => [...rules, added]);
    });
  rule
    .command('remove')
    .description('Remove rules from an ACL')
    .argument('<acl>')
    .argument('<direction>', DIRECTIONS.join(' or '))
    .argument('[key=value...]', 'what the rule has; none: any')
    .option('--force', 'Remove all rules that match')
    .addHelpText('after', '\nExample:\n  lighter network acl rule remove web ingress destination_port=80,443')
    .action(
      async (text: string, way: string, pairs: readonly string[], { force = false }: { readonly force?: boolean }) => {
        const wanted = pairs.map(keyValue);
        await changeRules(cli, text, way, (rules) => {
          const found = rules.filter((candidate) => wanted.every(([key, value]) => candidate[key] === value));
          return without(rules, found, force);
        });
      },
    );
}

/** The rest. AppError unless exactly one is to go, or several by force. */
function without<T>(all: readonly T[], found: readonly T[], force: boolean): readonly T[] {
  if (found.length === 0) throw new AppError('not_found', 'No matching rule found');
  if (found.length > 1 && !force) throw new AppError('invalid', 'Multiple rules match. Use --force to remove them all');
  return all.filter((item) => !found.includes(item));
}

async function changeRules(
  cli: Cli,
  text: string,
  way: string,
  edit: (rules: readonly Rule[]) => readonly Rule[],
): Promise<void> {
  if (!DIRECTIONS.includes(way)) {
    throw new AppError('invalid', 'The direction argument must be one of: ingress, egress');
  }
  await change(cli, ACL_KIND, await place(cli, ACL_KIND, [text]), (value) => ({
    [way]: edit((value[way] ?? []) as readonly Rule[]),
  }));
}
