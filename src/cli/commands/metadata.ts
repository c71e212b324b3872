// lighter config metadata and lighter config template: the image metadata of an instance, and its templates.
import type { Command } from 'commander';
import type { ImageMetadata } from '#src/client/wire.ts';
import type { Cli, Target } from '../cli.ts';
import { editFields, editText } from '../editing.ts';
import { byNaturalName, formatYaml } from '../format.ts';
import { INSTANCE_KIND } from '../kinds.ts';
import { addListing, send, url } from '../resource.ts';

const FIELDS = ['architecture', 'creation_date', 'expiry_date', 'properties', 'templates'];

export function addMetadataCommands(config: Command, cli: Cli): void {
  const metadata = config.command('metadata').description('Manage instance metadata files');
  metadata
    .command('show')
    .description('Show instance metadata files')
    .argument('<instance>')
    .action(async (text: string) => {
      const target = await cli.at(text);
      cli.terminal.out(formatYaml(await metadataOf(cli, target)));
    });
  metadata
    .command('edit')
    .description('Edit instance metadata files')
    .argument('<instance>')
    .addHelpText('after', '\nExample:\n  lighter config metadata edit web < metadata.yaml')
    .action(async (text: string) => {
      const target = await cli.at(text);
      await editFields(cli, {
        text: formatYaml(await metadataOf(cli, target)),
        fields: FIELDS,
        apply: async (body) => {
          await send(cli, target.client, { method: 'PUT', path: pathOf(target), body });
        },
      });
    });
  addTemplateCommands(config, cli);
}

function addTemplateCommands(config: Command, cli: Cli): void {
  const template = config.command('template').description('Manage instance file templates');
  addListing(template, cli, {
    description: 'List instance file templates',
    kind: INSTANCE_KIND,
    columns: [{ header: 'FILENAME', cell: (name: string) => name }],
    load: async (client, [name = '']) => client.instances.templates(name, cli.signal),
    by: (name) => name,
  });
  addTemplate(template, 'show', 'Show content of instance file templates').action(
    async (text: string, name: string) => {
      const target = await cli.at(text);
      cli.terminal.out(await target.client.instances.template(target.name, name, cli.signal));
    },
  );
  addTemplate(template, 'create', 'Create new instance file templates').action(async (text: string, name: string) => {
    const target = await cli.at(text);
    const content = cli.terminal.screen.isInput ? '' : await cli.terminal.readInput();
    await target.client.instances.setTemplate(target.name, { name, content }, cli.signal);
  });
  addTemplate(template, 'edit', 'Edit instance file templates').action(async (text: string, name: string) => {
    const { client, name: instance } = await cli.at(text);
    await editText(cli, {
      text: await client.instances.template(instance, name, cli.signal),
      extension: 'tpl',
      apply: async (content) => client.instances.setTemplate(instance, { name, content }, cli.signal),
    });
  });
  addTemplate(template, 'delete', 'Delete instance file templates')
    .alias('rm')
    .action(async (text: string, name: string) => {
      const target = await cli.at(text);
      await target.client.instances.removeTemplate(target.name, name, cli.signal);
    });
}

function addTemplate(template: Command, verb: string, description: string): Command {
  return template
    .command(verb)
    .description(description)
    .argument('<instance>')
    .argument('<template>')
    .addHelpText('after', `\nExample:\n  lighter config template ${verb} web hosts.tpl`);
}

function pathOf({ name }: Target): string {
  return url('instances', name, 'metadata');
}

async function metadataOf(cli: Cli, target: Target): Promise<ImageMetadata> {
  const { envelope } = await target.client.request('GET', pathOf(target), { signal: cli.signal });
  const { templates, ...rest } = envelope.metadata as ImageMetadata;
  const names = Object.keys(templates ?? {}).sort(byNaturalName);
  const ordered = names.map((name) => [
    name,
    { ...templates?.[name], properties: templates?.[name]?.properties ?? {} },
  ]);
  return { ...rest, templates: Object.fromEntries(ordered) as ImageMetadata['templates'] };
}
