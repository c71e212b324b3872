// lighter image copy and export: images to other servers, and to files.
import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { AppError } from '#src/lib/errors.ts';
import { boundaryOf, formParts } from '#src/lib/multipart.ts';
import { type Cli, repeated } from '../cli.ts';
import { imageSource } from '../image-source.ts';
import { isFolder, saveNew } from '../save.ts';
import { findImage } from './find-image.ts';

interface CopyOptions {
  readonly alias?: readonly string[];
  readonly autoUpdate?: boolean;
  readonly copyAliases?: boolean;
  readonly public?: boolean;
  readonly targetProject?: string;
}

export function addImageTransfers(image: Command, cli: Cli): void {
  image
    .command('copy')
    .alias('cp')
    .description('Copy images between servers')
    .argument('<image>', 'alias or fingerprint; REMOTE:IMAGE of another server')
    .argument('<remote:>', 'the engine that fetches it')
    .option('--alias <name>', 'New aliases to add to the image; may be repeated', repeated)
    .option('--auto-update', 'Keep the image up to date after initial copy')
    .option('--copy-aliases', 'Copy aliases from source')
    .option('--public', 'Make image public')
    .option('--target-project <project>', 'Copy to a project different from the source')
    .addOption(new Option('--mode <mode>', 'Transfer mode: the target pulls').choices(['pull']).default('pull'))
    .addHelpText(
      'after',
      '\nExamples:\n  lighter image copy images:debian/12 local: --alias debian\n  lighter image copy debian other: --copy-aliases',
    )
    .action(async (source: string, target: string, options: CopyOptions) => copy(cli, source, target, options));
  image
    .command('export')
    .description('Export and download images')
    .argument('<image>')
    .argument('[target]', 'directory, or name of the file; by itself the working directory')
    .addHelpText('after', '\nExamples:\n  lighter image export debian\n  lighter image export debian debian.tar.xz')
    .action(async (name: string, target: string | undefined) => {
      await exportImage(cli, name, target ?? '.');
      cli.say('Image exported successfully!');
    });
}

async function copy(cli: Cli, source: string, target: string, options: CopyOptions): Promise<void> {
  const { remote, name } = cli.split(target);
  if (name !== '') throw new AppError('invalid', "Can't provide a name for the target image; --alias gives it one");
  const client = await cli.client(remote, options.targetProject ?? cli.projectOf(remote));
  // Its own images are as foreign to it as another server's: only a project tells them apart.
  const from = await imageSource(cli, source, { client, remote: '' });
  const aliases = [...(options.alias ?? []), ...(options.copyAliases === true ? await aliasesOf(cli, source) : [])];
  const body = {
    source: { ...from, ...(await projectOf(cli, source)) },
    public: options.public === true,
    auto_update: options.autoUpdate === true,
  };
  const { metadata } = await cli.finish(client.operations.start('POST', '/1.0/images', { ...cli.call, body }));
  const fingerprint = String(metadata?.['fingerprint']);
  for (const alias of aliases) await client.images.createAlias({ name: alias, target: fingerprint }, cli.signal);
  cli.say('Image copied successfully!');
}

async function projectOf(cli: Cli, source: string): Promise<object> {
  const project = cli.projectOf(cli.split(source).remote);
  return project === undefined ? {} : { project };
}

async function aliasesOf(cli: Cli, source: string): Promise<readonly string[]> {
  const { image } = await findImage(cli, source);
  return (image.aliases ?? []).map(({ name }) => name);
}

/** One file, or two for an image of metadata and root file system. */
async function exportImage(cli: Cli, text: string, target: string): Promise<void> {
  const { client, image } = await findImage(cli, text);
  const { body, headers } = await client.images.export(image.fingerprint, cli.signal);
  const isInto = target !== '-' && (await isFolder(target));
  // As with lxc, a file gets the ending of what it is.
  const pathOf = (path: string, name: string): string => (isInto ? join(target, name) : withEnding(path, name));
  const boundary = boundaryOf(headers['content-type'] ?? '');
  if (boundary === undefined) {
    const name = /filename="?([^";]+)/.exec(headers['content-disposition'] ?? '')?.[1];
    return saveNew(cli, body, pathOf(target, fileName(name ?? image.fingerprint)));
  }
  for await (const { name, filename, content } of formParts(body, boundary)) {
    await saveNew(cli, content, pathOf(name === 'metadata' ? target : `${target}.root`, fileName(filename)));
  }
}

function withEnding(path: string, name: string): string {
  return path === '-' ? path : `${path}${/(?:\.tar)?\.[a-z0-9]+$/.exec(name)?.[0] ?? ''}`;
}

/** What the server calls it, as long as that is the name of a file. */
function fileName(name: string): string {
  if (/^[\w.+-]+$/.test(name) && !name.startsWith('.')) return name;
  throw new AppError('invalid', `The server offers a file of an impossible name: ${JSON.stringify(name)}`);
}
