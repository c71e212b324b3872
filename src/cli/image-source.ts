// Where the image of a new instance comes from: the engine itself, another one, or an image server.
import type { InstanceSource } from '#src/client/wire.ts';
import { AppError, kindOf } from '#src/lib/errors.ts';
import type { Cli, Target } from './cli.ts';
import { networkAddress } from './migration.ts';

/** `image` is what the user wrote; `target` is the engine that will use it. */
export async function imageSource(cli: Cli, image: string, target: Omit<Target, 'name'>): Promise<InstanceSource> {
  const { remote, name } = cli.split(image);
  const server = cli.remotes.get(remote);
  if (server.protocol === 'simplestreams') {
    return { type: 'image', mode: 'pull', server: server.addr, protocol: 'simplestreams', alias: name || 'default' };
  }
  const { client } = await cli.at(image);
  const alias = await client.images.findAlias(name, cli.signal);
  const found = await client.images
    .get(alias?.target ?? name, cli.signal)
    .catch((error: unknown) => explain(error, image));
  const { fingerprint } = found;
  if (remote === target.remote) return { type: 'image', fingerprint };
  const secret = found.public ? {} : { secret: await client.images.secret(fingerprint, cli.call) };
  const { address, certificate } = await networkAddress(cli, { client, remote });
  return { type: 'image', mode: 'pull', protocol: 'lxd', server: address, fingerprint, certificate, ...secret };
}

function explain(error: unknown, image: string): never {
  if (kindOf(error) !== 'not_found') throw error;
  throw new AppError('not_found', `Image not found: ${image}\nlighter image list shows what is there.`, {
    cause: error,
  });
}
