// lighter network forward: addresses of the machine that lead to instances.
import type { Command } from 'commander';
import { AppError } from '#src/lib/errors.ts';
import { type Cli, keyValue } from '../../cli.ts';
import { addDelete, addEdit, addKeys, addListing, addShow, change, listOf, place, send } from '../../resource.ts';
import { FORWARD_KIND, NETWORK_KIND } from './kinds.ts';

interface Port {
  readonly protocol: string;
  readonly listen_port: string;
  readonly target_address: string;
  readonly target_port?: string;
}

interface Forward {
  readonly listen_address: string;
  readonly description: string;
  readonly config: Readonly<Record<string, string>>;
  readonly ports: readonly Port[] | null;
}

export function addForwardCommands(network: Command, cli: Cli): void {
  const forward = network.command('forward').description('Manage network forwards');
  addListing(forward, cli, {
    description: 'List available network forwards',
    kind: NETWORK_KIND,
    columns: [
      { header: 'LISTEN ADDRESS', cell: ({ listen_address }: Forward) => listen_address },
      { header: 'DESCRIPTION', cell: ({ description }) => description },
      { header: 'DEFAULT TARGET ADDRESS', cell: ({ config }) => config['target_address'] ?? '' },
      { header: 'PORTS', cell: ({ ports }) => String(ports?.length ?? 0) },
    ],
    load: async (client, names) => listOf<Forward>(cli, client, `${NETWORK_KIND.path(names)}/forwards`),
    by: ({ listen_address }) => listen_address,
  });
  forward
    .command('create')
    .description('Create new network forwards')
    .argument('<network>')
    .argument('<listen address>')
    .argument('[key=value...]')
    .addHelpText('after', '\nExample:\n  lighter network forward create br0 192.0.2.1 target_address=10.1.0.5')
    .action(async (text: string, address: string, pairs: readonly string[]) => {
      const { client, name } = await cli.at(text);
      const body = { listen_address: address, config: Object.fromEntries(pairs.map(keyValue)) };
      await send(cli, client, { method: 'POST', path: `${NETWORK_KIND.path([name])}/forwards`, body });
      cli.say(`Network forward ${address} created`);
    });
  addShow(forward, cli, FORWARD_KIND);
  addEdit(forward, cli, FORWARD_KIND);
  addKeys(forward, cli, FORWARD_KIND);
  addDelete(forward, cli, FORWARD_KIND);
  addPorts(forward, cli);
}

function addPorts(forward: Command, cli: Cli): void {
  const port = forward.command('port').description('Manage network forward ports');
  port
    .command('add')
    .description('Add ports to a forward')
    .argument('<network>')
    .argument('<listen address>')
    .argument('<protocol>', 'tcp or udp')
    .argument('<listen ports>', '80,443 or 8000-8100')
    .argument('<target address>')
    .argument('[target ports]')
    .addHelpText('after', '\nExample:\n  lighter network forward port add br0 192.0.2.1 tcp 80,443 10.1.0.5')
    .action(async (...given: readonly (string | undefined)[]) => {
      const [network = '', address = '', protocol = '', listen = '', target = '', targetPort] = given.slice(0, 6);
      const added: Port = {
        protocol,
        listen_port: listen,
        target_address: target,
        ...(targetPort !== undefined && { target_port: targetPort }),
      };
      await changePorts(cli, [network, address], (ports) => [...ports, added]);
    });
  addPortRemoval(port, cli);
}

function addPortRemoval(port: Command, cli: Cli): void {
  port
    .command('remove')
    .description('Remove ports from a forward')
    .argument('<network>')
    .argument('<listen address>')
    .argument('[protocol]')
    .argument('[listen ports]')
    .option('--force', 'Remove all ports that match')
    .addHelpText('after', '\nExample:\n  lighter network forward port remove br0 192.0.2.1 tcp 80,443')
    .action(async (...given: readonly unknown[]) => {
      const [network = '', address = '', protocol, listen] = given as readonly (string | undefined)[];
      const { force = false } = given.at(-2) as { readonly force?: boolean };
      await changePorts(cli, [network, address], (ports) => {
        const found = ports.filter(
          (candidate) =>
            (protocol === undefined || candidate.protocol === protocol) &&
            (listen === undefined || candidate.listen_port === listen),
        );
        if (found.length === 0) throw new AppError('not_found', 'No matching port(s) found');
        if (found.length > 1 && !force) {
          throw new AppError('invalid', 'Multiple ports match. Use --force to remove them all');
        }
        return ports.filter((candidate) => !found.includes(candidate));
      });
    });
}

async function changePorts(
  cli: Cli,
  names: readonly string[],
  edit: (ports: readonly Port[]) => readonly Port[],
): Promise<void> {
  await change(cli, FORWARD_KIND, await place(cli, FORWARD_KIND, names), ({ ports }) => ({
    ports: edit((ports ?? []) as readonly Port[]),
  }));
}
