// lighter profile: what instances share.
import type { Command } from 'commander';
import type { Profile } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Cli } from '../cli.ts';
import { INSTANCE_KIND, PROFILE_KIND } from '../kinds.ts';
import { addDelete, addEdit, addKeys, addListing, addRename, addShow, change, listOf, place } from '../resource.ts';
import { addDeviceCommands } from './devices.ts';

type Fields = Readonly<Record<string, unknown>>;

export function addProfileCommands(program: Command, cli: Cli): void {
  const profile = program.command('profile').description('Manage profiles');
  addListing(profile, cli, {
    description: 'List profiles',
    columns: [
      { header: 'NAME', cell: ({ name }: Profile) => name },
      { header: 'DESCRIPTION', cell: ({ description }) => description },
      { header: 'USED BY', cell: ({ used_by }) => String(used_by?.length ?? 0) },
    ],
    load: async (client) => listOf<Profile>(cli, client, '/1.0/profiles'),
    by: ({ name }) => name,
  });
  profile
    .command('create')
    .description('Create profiles')
    .argument('<profile>')
    .addHelpText('after', '\nExample:\n  lighter profile create small')
    .action(async (text: string) => {
      const { client, name } = await cli.at(text);
      await client.profiles.create({ name }, cli.signal);
      cli.say(`Profile ${name} created`);
    });
  addShow(profile, cli, PROFILE_KIND);
  addEdit(profile, cli, PROFILE_KIND);
  addKeys(profile, cli, PROFILE_KIND);
  addRename(profile, cli, PROFILE_KIND);
  addDelete(profile, cli, PROFILE_KIND);
  addDeviceCommands(profile, cli, PROFILE_KIND);
  addCopy(profile, cli);
  addAssignment(profile, cli);
}

function addCopy(profile: Command, cli: Cli): void {
  profile
    .command('copy')
    .alias('cp')
    .description('Copy profiles')
    .argument('<profile>')
    .argument('<new profile>')
    .option('--target-project <project>', 'Copy to a project different from the source')
    .addHelpText('after', '\nExamples:\n  lighter profile copy small medium\n  lighter profile copy small other:small')
    .action(async (source: string, target: string, { targetProject }: { readonly targetProject?: string }) => {
      const from = await cli.at(source);
      const to = cli.split(target);
      const client = await cli.client(to.remote, targetProject ?? cli.projectOf(to.remote));
      const { config, devices, description } = await from.client.profiles.get(from.name, cli.signal);
      const name = to.name === '' ? from.name : to.name;
      await client.profiles.create({ name, config, devices, description }, cli.signal);
    });
}

function addAssignment(profile: Command, cli: Cli): void {
  profile
    .command('add')
    .description('Add profiles to instances')
    .argument('<instance>')
    .argument('<profile>')
    .action(async (instance: string, name: string) => {
      await setProfiles(cli, instance, (profiles) => [...profiles, name]);
      cli.say(`Profile ${name} added to ${cli.split(instance).name}`);
    });
  profile
    .command('remove')
    .description('Remove profiles from instances')
    .argument('<instance>')
    .argument('<profile>')
    .action(async (instance: string, name: string) => {
      const owner = cli.split(instance).name;
      await setProfiles(cli, instance, (profiles) => {
        if (profiles.includes(name)) return profiles.filter((other) => other !== name);
        throw new AppError('not_found', `Profile ${name} isn't currently applied to ${owner}`);
      });
      cli.say(`Profile ${name} removed from ${owner}`);
    });
  profile
    .command('assign')
    .alias('apply')
    .description('Assign sets of profiles to instances')
    .argument('<instance>')
    .argument('<profiles>', 'divided by commas')
    .addHelpText(
      'after',
      "\nExamples:\n  lighter profile assign web default,small\n  lighter profile assign web ''     no profile at all",
    )
    .action(async (instance: string, list: string) => {
      const profiles = list.split(',').filter((name) => name !== '');
      await setProfiles(cli, instance, () => profiles);
      cli.say(`Profiles ${profiles.length === 0 ? '(none)' : list} applied to ${cli.split(instance).name}`);
    });
}

async function setProfiles(
  cli: Cli,
  instance: string,
  edit: (profiles: readonly string[]) => readonly string[],
): Promise<void> {
  const where = await place(cli, INSTANCE_KIND, [instance]);
  const profiles = ({ profiles: now }: Fields): readonly string[] => (now ?? []) as readonly string[];
  await change(cli, INSTANCE_KIND, where, (value) => ({ profiles: edit(profiles(value)) }));
}
