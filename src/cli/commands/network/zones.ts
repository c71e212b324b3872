// lighter network zone: DNS zones of networks, their records and entries.
import { type Command, InvalidArgumentError } from 'commander';
import { AppError } from '#src/lib/errors.ts';
import { type Cli, keyValue } from '../../cli.ts';
import { addDelete, addEdit, addKeys, addListing, addShow, change, listOf, place, send } from '../../resource.ts';
import { RECORD_KIND, ZONE_KIND } from './kinds.ts';

interface Zone {
  readonly name: string;
  readonly description: string;
  readonly used_by: readonly string[] | null;
}

interface Entry {
  readonly type: string;
  readonly ttl?: number;
  readonly value: string;
}

interface ZoneRecord {
  readonly name: string;
  readonly description: string;
  readonly entries: readonly Entry[] | null;
}

export function addZoneCommands(network: Command, cli: Cli): void {
  const zone = network.command('zone').description('Manage network zones');
  addListing(zone, cli, {
    description: 'List available network zones',
    columns: [
      { header: 'NAME', cell: ({ name }: Zone) => name },
      { header: 'DESCRIPTION', cell: ({ description }) => description },
      { header: 'USED BY', cell: ({ used_by }) => String(used_by?.length ?? 0) },
    ],
    load: async (client) => listOf<Zone>(cli, client, '/1.0/network-zones'),
    by: ({ name }) => name,
  });
  zone
    .command('create')
    .description('Create new network zones')
    .argument('<zone>')
    .argument('[key=value...]')
    .addHelpText('after', '\nExample:\n  lighter network zone create example.net dns.nameservers=ns1.example.net')
    .action(async (text: string, pairs: readonly string[]) => {
      const { client, name } = await cli.at(text);
      const body = { name, config: Object.fromEntries(pairs.map(keyValue)) };
      await send(cli, client, { method: 'POST', path: '/1.0/network-zones', body });
      cli.say(`Network Zone ${name} created`);
    });
  addShow(zone, cli, ZONE_KIND);
  addEdit(zone, cli, ZONE_KIND);
  addKeys(zone, cli, ZONE_KIND);
  addDelete(zone, cli, ZONE_KIND);
  addRecords(zone, cli);
}

function addRecords(zone: Command, cli: Cli): void {
  const record = zone.command('record').description('Manage network zone records');
  addListing(record, cli, {
    description: 'List available network zone records',
    kind: ZONE_KIND,
    columns: [
      { header: 'NAME', cell: ({ name }: ZoneRecord) => name },
      { header: 'DESCRIPTION', cell: ({ description }) => description },
      {
        header: 'ENTRIES',
        cell: ({ entries }) => (entries ?? []).map(({ type, value }) => `${type} ${value}`).join('\n'),
      },
    ],
    load: async (client, names) => listOf<ZoneRecord>(cli, client, `${ZONE_KIND.path(names)}/records`),
    by: ({ name }) => name,
  });
  record
    .command('create')
    .description('Create new network zone record')
    .argument('<zone>')
    .argument('<record>')
    .argument('[key=value...]')
    .addHelpText('after', '\nExample:\n  lighter network zone record create example.net www')
    .action(async (text: string, recordName: string, pairs: readonly string[]) => {
      const { client, name } = await cli.at(text);
      const body = { name: recordName, config: Object.fromEntries(pairs.map(keyValue)) };
      await send(cli, client, { method: 'POST', path: `${ZONE_KIND.path([name])}/records`, body });
      cli.say(`Network zone record ${recordName} created`);
    });
  addShow(record, cli, RECORD_KIND);
  addEdit(record, cli, RECORD_KIND);
  addKeys(record, cli, RECORD_KIND);
  addDelete(record, cli, RECORD_KIND);
  addEntries(record, cli);
}

function addEntries(record: Command, cli: Cli): void {
  const entry = record.command('entry').description('Manage network zone record entries');
  entry
    .command('add')
    .description('Add entries to a network zone record')
    .argument('<zone>')
    .argument('<record>')
    .argument('<type>', 'A, AAAA, CNAME …')
    .argument('<value>')
    .option('--ttl <seconds>', 'Entry TTL', seconds)
    .addHelpText('after', '\nExample:\n  lighter network zone record entry add example.net www A 192.0.2.1 --ttl 300')
    .action(async (...given: readonly unknown[]) => {
      const [zone = '', name = '', type = '', value = ''] = given as readonly string[];
      const { ttl } = given.at(-2) as { readonly ttl?: number };
      const added: Entry = { type, value, ...(ttl !== undefined && { ttl }) };
      await changeEntries(cli, [zone, name], (entries) => [...entries, added]);
    });
  entry
    .command('remove')
    .description('Remove entries from a network zone record')
    .argument('<zone>')
    .argument('<record>')
    .argument('<type>')
    .argument('<value>')
    .action(async (zone: string, name: string, type: string, value: string) => {
      await changeEntries(cli, [zone, name], (entries) => {
        const rest = entries.filter((known) => known.type !== type || known.value !== value);
        if (rest.length === entries.length) throw new AppError('not_found', "Couldn't find a matching entry");
        return rest;
      });
    });
}

function seconds(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('It must be a number of seconds.');
  return Number(text);
}

async function changeEntries(
  cli: Cli,
  names: readonly string[],
  edit: (entries: readonly Entry[]) => readonly Entry[],
): Promise<void> {
  await change(cli, RECORD_KIND, await place(cli, RECORD_KIND, names), ({ entries }) => ({
    entries: edit((entries ?? []) as readonly Entry[]),
  }));
}
