// lighter network: networks of the engine, and the interfaces of the machine.
import { type Command, Option } from 'commander';
import type { Network, NetworkLease } from '#src/client/wire.ts';
import { type Cli, keyValue } from '../../cli.ts';
import { addDelete, addEdit, addKeys, addListing, addRename, addShow, listOf, send } from '../../resource.ts';
import { addAclCommands } from './acls.ts';
import { addNetworkAttachment } from './attachment.ts';
import { addForwardCommands } from './forwards.ts';
import { addNetworkInfo } from './info.ts';
import { NETWORK_KIND } from './kinds.ts';
import { addPeerCommands } from './peers.ts';
import { addZoneCommands } from './zones.ts';

/** Of no use to an instance. */
const HIDDEN = new Set(['loopback', 'unknown']);

export function addNetworkCommands(program: Command, cli: Cli): void {
  const network = program.command('network').description('Manage networks, and attach instances to them');
  addList(network, cli);
  network
    .command('create')
    .description('Create new networks')
    .argument('<network>')
    .argument('[key=value...]')
    .addOption(new Option('-t, --type <type>', 'Network type').default('', 'bridge'))
    .addHelpText('after', '\nExample:\n  lighter network create br0 ipv4.address=10.1.0.1/24 ipv6.address=none')
    .action(async (text: string, pairs: readonly string[], { type }: { readonly type: string }) => {
      const { client, name } = await cli.at(text);
      const body = { name, type, description: '', config: Object.fromEntries(pairs.map(keyValue)) };
      await send(cli, client, { method: 'POST', path: '/1.0/networks', body });
      cli.say(`Network ${name} created`);
    });
  addShow(network, cli, NETWORK_KIND);
  addEdit(network, cli, NETWORK_KIND);
  addKeys(network, cli, NETWORK_KIND);
  addRename(network, cli, NETWORK_KIND);
  addDelete(network, cli, NETWORK_KIND);
  addNetworkInfo(network, cli);
  addNetworkAttachment(network, cli);
  addAclCommands(network, cli);
  addForwardCommands(network, cli);
  addPeerCommands(network, cli);
  addZoneCommands(network, cli);
}

function addList(network: Command, cli: Cli): void {
  addListing(network, cli, {
    description: 'List available networks, the unmanaged interfaces of the machine included',
    columns: [
      { header: 'NAME', cell: ({ name }: Network) => name },
      { header: 'TYPE', cell: ({ type }) => type },
      { header: 'MANAGED', cell: ({ managed }) => (managed ? 'YES' : 'NO') },
      { header: 'IPV4', cell: ({ config }) => config['ipv4.address'] ?? '' },
      { header: 'IPV6', cell: ({ config }) => config['ipv6.address'] ?? '' },
      { header: 'DESCRIPTION', cell: ({ description }) => description },
      { header: 'USED BY', cell: ({ used_by }) => String(used_by?.length ?? 0) },
      { header: 'STATE', cell: ({ status }) => status.toUpperCase() },
    ],
    load: async (client) =>
      (await listOf<Network>(cli, client, '/1.0/networks')).filter(({ type }) => !HIDDEN.has(type)),
    by: ({ name }) => name,
  });
  addListing(network, cli, {
    name: 'list-leases',
    description: 'List DHCP leases',
    kind: NETWORK_KIND,
    columns: [
      { header: 'HOSTNAME', cell: ({ hostname }: NetworkLease) => hostname },
      { header: 'MAC ADDRESS', cell: ({ hwaddr }) => hwaddr },
      { header: 'IP ADDRESS', cell: ({ address }) => address },
      { header: 'TYPE', cell: ({ type }) => type.toUpperCase() },
    ],
    load: async (client, names) => listOf<NetworkLease>(cli, client, `${NETWORK_KIND.path(names)}/leases`),
    by: ({ hostname, address }) => `${hostname} ${address}`,
  });
}
