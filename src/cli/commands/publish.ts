// lighter publish: images of instances.
import type { Command } from 'commander';
import type { ImagePublish } from '#src/client/images.ts';
import { AppError } from '#src/lib/errors.ts';
import { type Cli, keyValue, repeated, type Target } from '../cli.ts';
import { remoteFirst } from '../resource.ts';

interface PublishOptions {
  readonly alias?: readonly string[];
  readonly compression?: string;
  readonly expire?: string;
  readonly force?: boolean;
  readonly public?: boolean;
}

export function addPublishCommand(program: Command, cli: Cli): void {
  program
    .command('publish')
    .description('Publish instances as images')
    .argument('<instance>', 'INSTANCE or INSTANCE/SNAPSHOT')
    .usage('[options] <instance[/snapshot]> [remote:] [key=value...]')
    .argument('[key=value...]', 'properties; none: those of its own image')
    .option('--alias <name>', 'New alias to define at target', repeated)
    .option('--compression <algorithm>', 'Compression algorithm to use (none for uncompressed)')
    .option('--expire <date>', 'Image expiration date (format: rfc3339)')
    .option('-f, --force', 'Stop the instance if currently running')
    .option('--public', 'Make image public')
    .addHelpText(
      'after',
      '\nExamples:\n  lighter publish web --alias web-image\n  lighter publish web --force --compression zstd',
    )
    .action(async (name: string, pairs: readonly string[], options: PublishOptions) => {
      await publish(cli, await cli.at(name), pairs, options);
    });
}

async function publish(cli: Cli, target: Target, words: readonly string[], options: PublishOptions): Promise<void> {
  const { client, name } = target;
  const [place, pairs] = remoteFirst(words);
  if (place !== '' && cli.split(place).remote !== target.remote) {
    throw new AppError('unsupported', 'Publish on the server of the instance, then use image copy');
  }
  const request = requestOf(name, pairs, options);
  const restart = request.source.type === 'instance' && (await stopFor(cli, target, options.force === true));
  try {
    const { metadata } = await cli.finish(client.images.publish(request, cli.call));
    cli.print(`Instance published with fingerprint: ${String(metadata?.['fingerprint'])}`);
  } finally {
    if (restart) await cli.finish(client.instances.setState(name, { action: 'start', timeout: -1 }, cli.call));
  }
}

function requestOf(name: string, pairs: readonly string[], options: PublishOptions): ImagePublish {
  const { alias = [], compression, expire } = options;
  if (expire !== undefined && Number.isNaN(Date.parse(expire))) {
    throw new AppError('invalid', `Invalid expiration date: ${expire}`);
  }
  return {
    source: { type: name.includes('/') ? 'snapshot' : 'instance', name },
    public: options.public === true,
    aliases: alias.map((text) => ({ name: text })),
    ...(compression !== undefined && { compression_algorithm: compression }),
    ...(expire !== undefined && { expires_at: expire }),
    ...(pairs.length > 0 && { properties: Object.fromEntries(pairs.map(keyValue)) }),
  };
}

/** Whether it has to be started again afterwards. */
async function stopFor(cli: Cli, { client, name }: Target, force: boolean): Promise<boolean> {
  const { status } = await client.instances.get(name, cli.signal);
  if (status === 'Stopped') return false;
  if (!force) {
    throw new AppError('invalid', 'The instance is currently running. Use --force to have it stopped and restarted');
  }
  const stop = { action: 'stop', timeout: -1, force: true } as const;
  await cli.finish(client.instances.setState(name, stop, cli.call));
  return true;
}
