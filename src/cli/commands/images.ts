// lighter image: import, list, info, delete, aliases.
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { type Command, Option } from 'commander';
import type { EngineClient } from '#src/client/client.ts';
import type { ImageUpload } from '#src/client/images.ts';
import type { Image } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import { type Cli, keyValue, repeated } from '../cli.ts';
import { formatDate, formatTime } from '../format.ts';
import { formatOption, remoteFirst } from '../resource.ts';
import { checkFormat, chooseColumns, type ColumnSet, renderList } from '../table.ts';
import { addAliasCommands } from './image-aliases.ts';
import { addImageTransfers } from './image-transfers.ts';
import { addImageEditing } from './image-editing.ts';
import { findImage } from './find-image.ts';

const DEFAULT_COLUMNS = 'lfpdatsu';

function aliasNames({ aliases }: Image): readonly string[] {
  return (aliases ?? []).map(({ name }) => name);
}

function shortestAlias(image: Image): string {
  const [first, ...others] = [...aliasNames(image)].sort((a, b) => a.length - b.length);
  if (first === undefined) return '';
  return others.length === 0 ? first : `${first} (${others.length} more)`;
}

function size({ size: bytes }: Image): string {
  return `${(bytes / 1024 / 1024).toFixed(2)}MB`;
}

function yesNo(value: boolean): string {
  return value ? 'yes' : 'no';
}

const IMAGE_COLUMNS: ColumnSet<Image> = {
  l: { header: 'ALIAS', cell: shortestAlias },
  L: { header: 'ALIASES', cell: (image) => aliasNames(image).join('\n') },
  f: { header: 'FINGERPRINT', cell: ({ fingerprint }) => fingerprint.slice(0, 12) },
  F: { header: 'FINGERPRINT', cell: ({ fingerprint }) => fingerprint },
  p: { header: 'PUBLIC', cell: (image) => yesNo(image.public) },
  d: { header: 'DESCRIPTION', cell: ({ properties }) => properties?.['description'] ?? '' },
  a: { header: 'ARCHITECTURE', cell: ({ architecture }) => architecture },
  t: { header: 'TYPE', cell: ({ type }) => type.toUpperCase() },
  s: { header: 'SIZE', cell: size },
  u: { header: 'UPLOAD DATE', cell: ({ uploaded_at }) => formatDate(uploaded_at) },
};

const LIST_HELP = `
Filters: key=value of a property (os=Debian), or part of an alias or fingerprint.

Columns (-c):
${Object.entries(IMAGE_COLUMNS)
  .map(([letter, { header }]) => `  ${letter} - ${header.toLowerCase()}`)
  .join('\n')}`;

export function addImageCommands(program: Command, cli: Cli): void {
  const image = program.command('image').description('Manage images');
  addImport(image, cli);
  addImageEditing(image, cli);
  addList(image, cli);
  image
    .command('info')
    .description('Show useful information about images')
    .argument('<image>', 'alias or fingerprint')
    .action(async (name: string) => {
      for (const line of infoLines((await findImage(cli, name)).image)) cli.print(line);
    });
  image
    .command('delete')
    .alias('rm')
    .description('Delete images')
    .argument('<image...>', 'aliases or fingerprints')
    .action(async (names: readonly string[]) => {
      for (const name of names) {
        const { client, image: found } = await findImage(cli, name);
        await cli.finish(client.images.remove(found.fingerprint, cli.call));
      }
    });
  addAliasCommands(image, cli);
  addImageTransfers(image, cli);
}

function addList(image: Command, cli: Cli): void {
  image
    .command('list')
    .alias('ls')
    .description('List images')
    .usage('[options] [remote:] [filter...]')
    .argument('[filter...]')
    .addOption(new Option('-c, --columns <columns>', 'Columns').default(DEFAULT_COLUMNS))
    .addOption(formatOption())
    .addHelpText('after', LIST_HELP)
    .action(async (words: readonly string[], options: { columns: string; format: string }) => {
      const [remote, filters] = remoteFirst(words);
      const { client } = await cli.at(remote);
      const format = checkFormat(options.format);
      const columns = chooseColumns(options.columns, IMAGE_COLUMNS);
      const images = (await client.images.list({ signal: cli.signal })).filter((candidate) =>
        filters.every((filter) => matches(candidate, filter)),
      );
      const ordered = [...images].sort((a, b) => (shortestAlias(a) < shortestAlias(b) ? -1 : 1));
      cli.terminal.out(renderList(ordered, columns, format));
    });
}

function addImport(image: Command, cli: Cli): void {
  image
    .command('import')
    .description('Import image into the image store')
    .usage('[options] <tarball> [rootfs] [remote:] [key=value...]')
    .argument('<tarball>', 'LXD image, or its metadata when a root file system follows; or an https URL')
    .argument('[word...]', 'root file system (tarball or squashfs), remote, properties')
    .option('--alias <name>', 'New aliases to add to the image', repeated)
    .option('--public', 'Make image public')
    .addHelpText(
      'after',
      '\nExamples:\n  lighter image import debian.tar.xz --alias debian\n  lighter image import meta.tar.xz rootfs.squashfs --alias debian os=Debian',
    )
    .action(async (tarball: string, words: readonly string[], options: ImportOptions) => {
      const remote = words.find((word) => /^[A-Za-z0-9._-]+:$/.test(word));
      const pairs = words.filter((word) => word.includes('='));
      const [rootfs, another] = words.filter((word) => word !== remote && !word.includes('='));
      if (another !== undefined) throw new AppError('invalid', `What is "${another}"? Properties are key=value`);
      const { client } = await cli.at(remote ?? '');
      if (/^https?:\/\//.test(tarball)) return importUrl(cli, client, { url: tarball, pairs, options });
      if ((await stat(tarball)).isDirectory()) {
        throw new AppError('invalid', `${tarball} is a directory; pack it: tar -C ${tarball} -cf image.tar .`);
      }
      const upload = uploadOf(tarball, rootfs, pairs, options.public === true);
      await importImage(cli, client, { upload, aliases: options.alias ?? [] });
    });
}

interface ImportOptions {
  readonly alias?: readonly string[];
  readonly public?: boolean;
}

/** The engine fetches it; the server there says where the image is. */
async function importUrl(
  cli: Cli,
  client: EngineClient,
  { url, pairs, options }: { readonly url: string; readonly pairs: readonly string[]; readonly options: ImportOptions },
): Promise<void> {
  const { metadata } = await cli.finish(
    client.images.importUrl(
      {
        source: { type: 'url', mode: 'pull', url },
        public: options.public === true,
        ...(pairs.length > 0 && { properties: Object.fromEntries(pairs.map(keyValue)) }),
      },
      cli.call,
    ),
  );
  await named(cli, client, String(metadata?.['fingerprint']), options.alias ?? []);
}

async function named(cli: Cli, client: EngineClient, fingerprint: string, aliases: readonly string[]): Promise<void> {
  cli.print(`Image imported with fingerprint: ${fingerprint}`);
  for (const name of aliases) await client.images.createAlias({ name, target: fingerprint }, cli.signal);
}

function uploadOf(
  tarball: string,
  rootfs: string | undefined,
  pairs: readonly string[],
  isPublic: boolean,
): ImageUpload {
  return {
    content:
      rootfs === undefined
        ? { kind: 'unified', tarball: createReadStream(tarball) }
        : { kind: 'split', metadata: createReadStream(tarball), rootfs: createReadStream(rootfs) },
    filename: basename(rootfs ?? tarball),
    public: isPublic,
    ...(pairs.length === 0 ? {} : { properties: Object.fromEntries(pairs.map(keyValue)) }),
  };
}

async function importImage(
  cli: Cli,
  client: EngineClient,
  { upload, aliases }: { readonly upload: ImageUpload; readonly aliases: readonly string[] },
): Promise<void> {
  const operation = await cli.finish(client.images.upload(upload, cli.call));
  await named(cli, client, String(operation.metadata?.['fingerprint']), aliases);
}

function matches(image: Image, filter: string): boolean {
  if (!filter.includes('=')) {
    return image.fingerprint.startsWith(filter) || aliasNames(image).some((name) => name.includes(filter));
  }
  const [key, value] = keyValue(filter);
  return image.properties?.[key] === value || (key === 'architecture' && image.architecture === value);
}

function infoLines(image: Image): readonly string[] {
  const properties = Object.entries(image.properties ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  return [
    `Fingerprint: ${image.fingerprint}`,
    `Size: ${size(image)}`,
    `Architecture: ${image.architecture}`,
    `Type: ${image.type}`,
    `Public: ${yesNo(image.public)}`,
    'Timestamps:',
    `    Created: ${formatTime(image.created_at) ?? 'unknown'}`,
    `    Uploaded: ${formatTime(image.uploaded_at) ?? 'unknown'}`,
    `    Expires: ${formatTime(image.expires_at) ?? 'never'}`,
    `    Last used: ${formatTime(image.last_used_at) ?? 'never'}`,
    'Properties:',
    ...properties.map(([key, value]) => `    ${key}: ${value}`),
    'Aliases:',
    ...aliasNames(image).map((name) => `    - ${name}`),
    `Cached: ${yesNo(image.cached)}`,
    `Auto update: ${image.auto_update ? 'enabled' : 'disabled'}`,
    ...((image.profiles ?? []).length === 0 ? ['Profiles: []'] : ['Profiles:']),
    ...(image.profiles ?? []).map((name) => `    - ${name}`),
  ];
}
