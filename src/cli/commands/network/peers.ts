// lighter network peer: networks that see each other.
import type { Command } from 'commander';
import { type Cli, keyValue } from '../../cli.ts';
import { addDelete, addEdit, addKeys, addListing, addShow, listOf, send } from '../../resource.ts';
import { NETWORK_KIND, PEER_KIND } from './kinds.ts';

interface Peer {
  readonly name: string;
  readonly description: string;
  readonly target_project?: string;
  readonly target_network?: string;
  readonly status: string;
}

export function addPeerCommands(network: Command, cli: Cli): void {
  const peer = network.command('peer').description('Manage network peerings (of engines with OVN)');
  addList(peer, cli);
  addCreate(peer, cli);
  addShow(peer, cli, PEER_KIND);
  addEdit(peer, cli, PEER_KIND);
  addKeys(peer, cli, PEER_KIND);
  addDelete(peer, cli, PEER_KIND);
}

function addList(peer: Command, cli: Cli): void {
  addListing(peer, cli, {
    description: 'List available network peers',
    kind: NETWORK_KIND,
    columns: [
      { header: 'NAME', cell: ({ name }: Peer) => name },
      { header: 'DESCRIPTION', cell: ({ description }) => description },
      {
        header: 'PEER',
        cell: ({ target_project: project, target_network: target }) =>
          project === undefined || target === undefined ? 'Unknown' : `${project}/${target}`,
      },
      { header: 'STATE', cell: ({ status }) => status.toUpperCase() },
    ],
    load: async (client, names) => listOf<Peer>(cli, client, `${NETWORK_KIND.path(names)}/peers`),
    by: ({ name }) => name,
  });
}

function addCreate(peer: Command, cli: Cli): void {
  peer
    .command('create')
    .description('Create new network peering')
    .argument('<network>')
    .argument('<peer>')
    .argument('<[project/]network>')
    .argument('[key=value...]')
    .addHelpText('after', '\nExample:\n  lighter network peer create ovn1 peer1 team/ovn2')
    .action(async (text: string, peerName: string, target: string, pairs: readonly string[]) => {
      const { client, name, remote } = await cli.at(text);
      const at = target.indexOf('/');
      const body = {
        name: peerName,
        target_project: at < 0 ? (cli.projectOf(remote) ?? 'default') : target.slice(0, at),
        target_network: target.slice(at + 1),
        config: Object.fromEntries(pairs.map(keyValue)),
      };
      await send(cli, client, { method: 'POST', path: `${NETWORK_KIND.path([name])}/peers`, body });
      cli.say(`Network peer ${peerName} created`);
    });
}
