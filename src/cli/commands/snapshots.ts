// lighter snapshot, restore and rebuild.
import type { Command } from 'commander';
import { STATUS } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Cli, Target } from '../cli.ts';
import { imageSource } from '../image-source.ts';

const NO_EXPIRY = '0001-01-01T00:00:00Z';

interface SnapshotOptions {
  readonly stateful?: boolean;
  readonly expiry: boolean;
  readonly reuse?: boolean;
}

export function addSnapshotCommands(program: Command, cli: Cli): void {
  addSnapshot(program, cli);
  addRestore(program, cli);
  addRebuild(program, cli);
}

function addSnapshot(program: Command, cli: Cli): void {
  program
    .command('snapshot')
    .description('Create instance snapshots')
    .argument('<instance>')
    .argument('[name]', 'absent: by snapshots.pattern, or snap0, snap1 …')
    .option('--stateful', "Whether or not to snapshot the instance's running state")
    .option('--no-expiry', 'Ignore any configured auto-expiry for the instance')
    .option('--reuse', 'If the snapshot name already exists, delete and create a new one')
    .addHelpText('after', '\nExamples:\n  lighter snapshot web\n  lighter snapshot web before-upgrade --reuse')
    .action(async (text: string, name: string | undefined, given: SnapshotOptions) => {
      const target = await cli.at(text);
      if (target.name.includes('/')) {
        throw new AppError('invalid', 'Invalid instance name: a snapshot has no snapshots');
      }
      if (given.reuse === true && name !== undefined) await removeIfThere(cli, target, name);
      const body = {
        name: name ?? '',
        stateful: given.stateful === true,
        ...(given.expiry ? {} : { expires_at: NO_EXPIRY }),
      };
      await cli.finish(target.client.instances.createSnapshot(target.name, body, cli.call));
    });
}

async function removeIfThere(cli: Cli, { client, name: instance }: Target, name: string): Promise<void> {
  const names = await client.instances.snapshotNames(instance, cli.signal);
  if (names.includes(name)) await cli.finish(client.instances.removeSnapshot(instance, name, cli.call));
}

function addRestore(program: Command, cli: Cli): void {
  program
    .command('restore')
    .description('Restore instances from snapshots')
    .argument('<instance>')
    .argument('<snapshot>')
    .option('--stateful', "Whether or not to restore the instance's running state from snapshot (if available)")
    .addHelpText('after', '\nExamples:\n  lighter snapshot web\n  lighter restore web snap0')
    .action(async (text: string, snapshot: string, given: { readonly stateful?: boolean }) => {
      const { client, name } = await cli.at(text);
      const body = { restore: snapshot, stateful: given.stateful === true };
      await cli.finish(client.instances.update(name, body, cli.call));
    });
}

interface RebuildOptions {
  readonly empty?: boolean;
  readonly force?: boolean;
}

function addRebuild(program: Command, cli: Cli): void {
  program
    .command('rebuild')
    .description('Rebuild instances: a new root, the same settings')
    .argument('<image-or-instance>', 'image; with --empty the instance')
    .argument('[instance]')
    .option('--empty', 'Rebuild as an empty instance')
    .option('-f, --force', 'If an instance is running, stop it and then rebuild it')
    .addHelpText('after', '\nExamples:\n  lighter rebuild debian web --force\n  lighter rebuild --empty web')
    .action(async (first: string, second: string | undefined, given: RebuildOptions) => {
      const target = await cli.at((given.empty === true ? (second ?? first) : second) ?? '');
      if (target.name === '') throw new AppError('invalid', 'An instance name is needed');
      const source = given.empty === true ? { type: 'none' as const } : await imageSource(cli, first, target);
      const { client, name } = target;
      const { status_code } = await client.instances.get(name, cli.signal);
      const isRunning = status_code !== STATUS.stopped;
      if (isRunning && given.force === true) {
        const stop = { action: 'stop' as const, timeout: -1, force: true };
        await cli.finish(client.instances.setState(name, stop, cli.call));
      }
      await cli.finish(client.instances.rebuild(name, source, cli.call));
      if (!isRunning || given.force !== true) return;
      await cli.finish(client.instances.setState(name, { action: 'start', timeout: -1 }, cli.call));
    });
}
