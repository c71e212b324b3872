// Images that an administrator wants to be on this host before anybody builds from them (section 5.15).
import { kindOf } from '#src/lib/errors.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { isNova } from '#src/nova/exceptions.ts';
import type { ComputeServices } from '../types.ts';
import { spawnImage } from './spawn-image.ts';

export type CacheResult = 'cached' | 'existing' | 'unsupported' | 'error';

/** One after another, as a stock compute does; one that fails is told of and keeps no other one from being there. */
export async function cacheImages(
  services: Pick<ComputeServices, 'virt' | 'glance' | 'log'>,
  context: RequestContext,
  ids: readonly string[],
  signal: AbortSignal,
): Promise<Readonly<Record<string, CacheResult>>> {
  const results: Record<string, CacheResult> = {};
  for (const id of new Set(ids)) results[id] = await cacheImage(services, context, id, signal);
  return results;
}

async function cacheImage(
  { virt, glance, log }: Pick<ComputeServices, 'virt' | 'glance' | 'log'>,
  context: RequestContext,
  id: string,
  signal: AbortSignal,
): Promise<CacheResult> {
  try {
    return await virt.cacheImage(await spawnImage(glance, context, { id }, signal), signal);
  } catch (error) {
    signal.throwIfAborted();
    const isUnfit = kindOf(error) === 'invalid' && !isNova(error, 'ImageNotActive');
    log.warn('image not cached ahead', { image: id, error });
    return isUnfit ? 'unsupported' : 'error';
  }
}
