// lighter storage volume copy and move: between pools, projects and engines.
import type { Command } from 'commander';
import type { EngineClient } from '#src/client/client.ts';
import type { PendingOperation } from '#src/client/operations.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Cli } from '../cli.ts';
import { type Mode, modeOption, transfer } from '../migration.ts';
import { read, send, url } from '../resource.ts';

interface CopyOptions {
  readonly mode: Mode;
  readonly refresh?: boolean;
  readonly targetProject?: string;
  readonly volumeOnly?: boolean;
}

interface End {
  readonly remote: string;
  readonly client: EngineClient;
  readonly pool: string;
  /** VOLUME or VOLUME/SNAPSHOT. */
  readonly name: string;
}

export function addVolumeCopies(volume: Command, cli: Cli): void {
  volume
    .command('copy')
    .alias('cp')
    .description('Copy storage volumes')
    .argument('<pool/volume[/snapshot]>')
    .argument('<pool/volume>')
    .addOption(modeOption())
    .option('--refresh', 'Refresh and update the existing storage volume copies')
    .option('--target-project <project>', 'Copy to a project different from the source')
    .option('--volume-only', 'Copy the volume without its snapshots')
    .addHelpText(
      'after',
      '\nExamples:\n  lighter storage volume copy default/data fast/data\n  lighter storage volume copy default/data other:default/data',
    )
    .action(async (from: string, to: string, options: CopyOptions) => {
      await copy(cli, await end(cli, from), await end(cli, to, options.targetProject), options);
      cli.say('Storage volume copied successfully!');
    });
  addMove(volume, cli);
}

function addMove(volume: Command, cli: Cli): void {
  volume
    .command('move')
    .alias('mv')
    .description('Move storage volumes between pools')
    .argument('<pool/volume>')
    .argument('<pool/volume>')
    .addOption(modeOption())
    .option('--target-project <project>', 'Move to a project different from the source')
    .addHelpText('after', '\nExample:\n  lighter storage volume move default/data fast/data')
    .action(async (from: string, to: string, options: CopyOptions) => {
      const [source, target] = [await end(cli, from), await end(cli, to, options.targetProject)];
      const path = url('storage-pools', source.pool, 'volumes', 'custom', source.name);
      if (source.remote === target.remote) {
        const project = options.targetProject === undefined ? {} : { project: options.targetProject };
        const body = { name: target.name, pool: target.pool, ...project };
        await cli.finish(source.client.operations.start('POST', path, { ...cli.call, body }));
      } else {
        await copy(cli, source, target, options);
        await send(cli, source.client, { method: 'DELETE', path });
      }
      cli.say('Storage volume moved successfully!');
    });
}

async function end(cli: Cli, text: string, project?: string): Promise<End> {
  const { remote, name: place } = cli.split(text);
  const [, pool = '', name = ''] = /^([^/]+)\/(.+)$/.exec(place) ?? [];
  if (pool === '') throw new AppError('invalid', `Expected POOL/VOLUME, got "${text}"`);
  return { remote, pool, name, client: await cli.client(remote, project ?? cli.projectOf(remote)) };
}

async function copy(cli: Cli, source: End, target: End, options: CopyOptions): Promise<void> {
  const { volumeOnly = false, refresh = false, mode } = options;
  const create = url('storage-pools', target.pool, 'volumes', 'custom');
  const receive = (from: object, more: object = {}): Promise<PendingOperation> => {
    const body = { name: target.name, type: 'custom', ...more, source: { ...from, volume_only: volumeOnly, refresh } };
    return target.client.operations.start('POST', create, { ...cli.call, body });
  };
  if (source.remote === target.remote) {
    const project = cli.projectOf(source.remote) ?? 'default';
    await cli.finish(receive({ type: 'copy', name: source.name, pool: source.pool, project }));
    return;
  }
  const { path, volume } = placeOf(source);
  // What the new one says of itself is the client's to tell; the other end sends the content.
  const { value } = await read(cli, { client: source.client, path });
  const { config, description } = value;
  const ask = (to: object): Promise<PendingOperation> => {
    const body = { name: volume, migration: true, volume_only: volumeOnly, ...to };
    return source.client.operations.start('POST', path, { ...cli.call, body });
  };
  const named = { name: source.name, pool: source.pool };
  const parts = {
    source,
    target,
    send: ask,
    receive: (from: object) => receive({ ...named, ...from }, { config, description }),
  };
  await transfer(cli, mode, parts);
}

function placeOf({ pool, name }: End): { readonly path: string; readonly volume: string } {
  const [volume = '', snapshot] = name.split('/');
  const path = url('storage-pools', pool, 'volumes', 'custom', volume);
  if (snapshot === undefined) return { path, volume };
  return { path: `${path}/snapshots/${encodeURIComponent(snapshot)}`, volume: snapshot };
}
