// What a guest in memory is put together from, side by side.
import type { SpawnHooks, SpawnImage } from '../driver.ts';
import type { FakeImages } from './images.ts';
import type { FakeInstance } from './instance.ts';

type Prepared = Pick<FakeInstance, 'nics' | 'guest' | 'volumes'>;

/** The first of network and image that fails gives up the other; both have ended when this rejects. */
export async function prepare(
  images: FakeImages,
  { image, hooks }: { readonly image: SpawnImage; readonly hooks: SpawnHooks },
  signal: AbortSignal,
): Promise<Prepared> {
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  const network = async (): Promise<Prepared> => {
    const [nics, volumes = []] = await Promise.all([hooks.network(either), hooks.volumes?.(either)]);
    const [guest] = await Promise.all([hooks.guest?.(either), hooks.wired?.(either)]);
    return { nics, guest, volumes };
  };
  const work = [network(), images.fetch(image, either)] as const;
  for (const each of work) each.catch((error: unknown) => failed.abort(error));
  await Promise.allSettled(work);
  either.throwIfAborted();
  return work[0];
}
