// lighter storage volume attach and detach: volumes as disks of instances and of profiles.
import type { Command } from 'commander';
import type { Cli } from '../cli.ts';
import { attachDevice, detachDevice } from '../attachment.ts';
import { INSTANCE_KIND, PROFILE_KIND } from '../kinds.ts';
import type { Kind } from '../resource.ts';
import { parseVolume } from '../volume-name.ts';

export function addVolumeAttachment(volume: Command, cli: Cli): void {
  for (const [kind, suffix] of [
    [INSTANCE_KIND, ''],
    [PROFILE_KIND, '-profile'],
  ] as const) {
    addAttach(volume, cli, { kind, suffix });
    addDetach(volume, cli, { kind, suffix });
  }
}

interface Variant {
  readonly kind: Kind;
  readonly suffix: string;
}

function addAttach(volume: Command, cli: Cli, { kind, suffix }: Variant): void {
  volume
    .command(`attach${suffix}`)
    .description(`Attach storage volumes to ${kind.noun}s`)
    .argument('<pool>')
    .argument('<volume>')
    .argument(`<${kind.noun}>`)
    .argument('[device]', 'name of the device; by itself that of the volume')
    .argument('[path]', 'where it is mounted inside; none for a block volume')
    .addHelpText('after', `\nExample:\n  lighter storage volume attach${suffix} default data ${kind.example} /srv/data`)
    .action(async (pool: string, volumeText: string, owner: string, ...rest: readonly unknown[]) => {
      const { client, name: poolName } = await cli.at(pool);
      const { type, name } = parseVolume(volumeText);
      const { device = name, path } = deviceAndPath(rest as readonly (string | undefined)[]);
      const source = type === 'custom' ? name : `${type}/${name}`;
      const disk = { type: 'disk', pool: poolName, source, ...(path !== undefined && { path }) };
      await attachDevice(cli, kind, { client, owner, name: device, device: disk });
    });
}

/** `[device] [path]`, either of which may be absent: paths begin with a slash. */
function deviceAndPath([first, second]: readonly (string | undefined)[]): {
  readonly device?: string | undefined;
  readonly path?: string | undefined;
} {
  const isPath = first?.startsWith('/') === true && second === undefined;
  return isPath ? { path: first } : { device: first, path: second };
}

function addDetach(volume: Command, cli: Cli, { kind, suffix }: Variant): void {
  volume
    .command(`detach${suffix}`)
    .description(`Detach storage volumes from ${kind.noun}s`)
    .argument('<pool>')
    .argument('<volume>')
    .argument(`<${kind.noun}>`)
    .argument('[device]', 'needed when several devices have the volume')
    .addHelpText('after', `\nExample:\n  lighter storage volume detach${suffix} default data ${kind.example}`)
    .action(async (text: string, volumeText: string, owner: string, name: string | undefined) => {
      const { client, name: pool } = await cli.at(text);
      const { type, name: volumeName } = parseVolume(volumeText);
      const source = type === 'custom' ? volumeName : `${type}/${volumeName}`;
      await detachDevice(cli, kind, {
        client,
        owner,
        name,
        what: 'storage volume',
        matches: (device) => device['type'] === 'disk' && device['pool'] === pool && device['source'] === source,
      });
    });
}
