// Images by the names that users give.
import type { Image } from '#src/client/wire.ts';
import { AppError, kindOf } from '#src/lib/errors.ts';
import type { Cli, Target } from '../cli.ts';

export interface FoundImage extends Target {
  readonly image: Image;
}

/** By alias, or by fingerprint or its beginning. */
export async function findImage(cli: Cli, text: string): Promise<FoundImage> {
  const target = await cli.at(text);
  const { client, name } = target;
  const known = await client.images.findAlias(name, cli.signal);
  try {
    return { ...target, image: await client.images.get(known?.target ?? name, cli.signal) };
  } catch (error) {
    if (kindOf(error) !== 'not_found') throw error;
    throw new AppError('not_found', `Image not found: ${text}`, { cause: error });
  }
}
