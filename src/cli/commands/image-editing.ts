// lighter image show, get-property, set-property, unset-property, refresh.
import type { Command } from 'commander';
import type { ImagePut } from '#src/client/images.ts';
import type { Image } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Cli } from '../cli.ts';
import { editFields } from '../editing.ts';
import { formatYaml, sorted } from '../format.ts';
import { findImage } from './find-image.ts';

export function addImageEditing(image: Command, cli: Cli): void {
  image
    .command('show')
    .description('Show image properties')
    .argument('<image>', 'alias or fingerprint')
    .action(async (name: string) => cli.terminal.out(formatYaml(editable((await findImage(cli, name)).image))));
  image
    .command('edit')
    .description('Edit image properties')
    .argument('<image>', 'alias or fingerprint')
    .addHelpText('after', '\nExamples:\n  lighter image edit debian\n  lighter image edit debian < image.yaml')
    .action(async (name: string) => {
      const { client, image: found } = await findImage(cli, name);
      await editFields(cli, {
        text: formatYaml(editable(found)),
        fields: ['auto_update', 'properties', 'public', 'expires_at', 'profiles'],
        apply: async (body) => client.images.replace(found.fingerprint, body, cli.signal),
      });
    });
  image
    .command('refresh')
    .description('Refresh images')
    .argument('<image...>', 'aliases or fingerprints')
    .action(async (names: readonly string[]) => {
      for (const name of names) await refresh(cli, name);
    });
  addProperties(image, cli);
}

async function refresh(cli: Cli, name: string): Promise<void> {
  const { client, image } = await findImage(cli, name);
  const { metadata } = await cli.finish(client.images.refresh(image.fingerprint, cli.call));
  cli.say(metadata?.['refreshed'] === true ? 'Image refreshed successfully!' : 'Image already up to date.');
}

function addProperties(image: Command, cli: Cli): void {
  image
    .command('get-property')
    .description('Get image properties')
    .argument('<image>')
    .argument('<key>')
    .action(async (name: string, key: string) => {
      const value = (await findImage(cli, name)).image.properties?.[key];
      if (value === undefined) throw new AppError('not_found', 'Property not found');
      cli.print(value);
    });
  image
    .command('set-property')
    .description('Set image properties')
    .argument('<image>')
    .argument('<key>')
    .argument('<value>')
    .action(async (name: string, key: string, value: string) => {
      const { client, image } = await findImage(cli, name);
      await client.images.update(image.fingerprint, { properties: { [key]: value } }, cli.signal);
    });
  image
    .command('unset-property')
    .description('Unset image properties')
    .argument('<image>')
    .argument('<key>')
    .action(async (name: string, key: string) => {
      const { client, image } = await findImage(cli, name);
      const { [key]: old, ...properties } = image.properties ?? {};
      if (old === undefined) throw new AppError('not_found', 'Property not found');
      await client.images.replace(image.fingerprint, { ...editable(image), properties }, cli.signal);
    });
}

function editable(image: Image): ImagePut & { readonly expires_at: string } {
  const { auto_update, properties, public: isPublic, expires_at, profiles } = image;
  return { auto_update, properties: sorted(properties ?? {}), public: isPublic, expires_at, profiles: profiles ?? [] };
}
