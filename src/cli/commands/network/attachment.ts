// lighter network attach and detach: networks as nics of instances and of profiles.
import type { Command } from 'commander';
import { attachDevice, detachDevice } from '../../attachment.ts';
import type { Cli } from '../../cli.ts';
import { INSTANCE_KIND, PROFILE_KIND } from '../../kinds.ts';
import type { Kind } from '../../resource.ts';
import { nic } from '../create.ts';

export function addNetworkAttachment(network: Command, cli: Cli): void {
  addPair(network, cli, INSTANCE_KIND, '');
  addPair(network, cli, PROFILE_KIND, '-profile');
}

function addPair(network: Command, cli: Cli, kind: Kind, suffix: string): void {
  network
    .command(`attach${suffix}`)
    .description(`Attach network interfaces to ${kind.noun}s`)
    .argument('<network>')
    .argument(`<${kind.noun}>`)
    .argument('[device]', 'name of the device; by itself that of the network')
    .argument('[interface]', 'name of the interface inside')
    .addHelpText('after', `\nExample:\n  lighter network attach${suffix} br0 ${kind.example} eth1`)
    .action(async (...given: readonly (string | undefined)[]) => {
      const [text = '', owner = '', device, inside] = given.slice(0, 4);
      const { client, name } = await cli.at(text);
      const { name: _eth0, ...fields } = await nic(cli, client, name);
      const made = { ...fields, ...(inside !== undefined && { name: inside }) };
      await attachDevice(cli, kind, { client, owner, name: device ?? name, device: made });
    });
  network
    .command(`detach${suffix}`)
    .description(`Detach network interfaces from ${kind.noun}s`)
    .argument('<network>')
    .argument(`<${kind.noun}>`)
    .argument('[device]', 'needed when several devices are on the network')
    .addHelpText('after', `\nExample:\n  lighter network detach${suffix} br0 ${kind.example}`)
    .action(async (text: string, owner: string, device: string | undefined) => {
      const { client, name } = await cli.at(text);
      await detachDevice(cli, kind, {
        client,
        owner,
        name: device,
        what: 'network',
        matches: (fields) => fields['type'] === 'nic' && (fields['network'] === name || fields['parent'] === name),
      });
    });
}
