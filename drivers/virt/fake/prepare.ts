// What a guest in memory is put together from, side by side.
import { AppError } from '#src/lib/errors.ts';
import type { SpawnHooks, SpawnImage } from '../driver.ts';
import type { FakeImages } from './images.ts';
import type { FakeInstance } from './instance.ts';

type Prepared = Pick<FakeInstance, 'nics' | 'guest' | 'volumes'>;

/** The first of network and image that fails gives up the other; both have ended when this rejects. */
export async function prepare(
  images: FakeImages,
  { image, hooks }: { readonly image: SpawnImage | null; readonly hooks: SpawnHooks },
  signal: AbortSignal,
): Promise<Prepared> {
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  const network = async (): Promise<Prepared> => {
    const [nics, volumes = []] = await Promise.all([hooks.network(either), hooks.volumes?.(either)]);
    if (image === null) await fetchRoot(images, { hooks, hasRoot: volumes.some(({ isRoot }) => isRoot) }, either);
    const [guest] = await Promise.all([hooks.guest?.(either), hooks.wired?.(either)]);
    return { nics, guest, volumes };
  };
  const fetched = image ? images.fetch(image, either) : Promise.resolve();
  const work = [network(), fetched] as const;
  for (const each of work) each.catch((error: unknown) => failed.abort(error));
  await Promise.allSettled(work);
  either.throwIfAborted();
  return work[0];
}

/** Every root volume in memory holds an image: one that cannot be read fails the spawn. */
async function fetchRoot(
  images: FakeImages,
  { hooks, hasRoot }: { readonly hooks: SpawnHooks; readonly hasRoot: boolean },
  signal: AbortSignal,
): Promise<void> {
  if (!hasRoot) throw new AppError('invalid', 'there is neither an image nor a volume to boot from');
  const image = await hooks.rootImage?.(signal);
  if (image) await images.fetch(image, signal);
}
