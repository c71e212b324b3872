// The snapshot that a shelved instance was kept in; of no use once the instance runs again (section 5.4, start).
import type { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { userCredentials } from '../network/credentials.ts';
import type { ComputeServices } from '../types.ts';

/** Deletes it and drops the `shelved_*` keys; to be saved by the caller. What cannot be deleted is logged. */
export async function dropShelvedImage(
  { glance, log }: Pick<ComputeServices, 'glance' | 'log'>,
  context: RequestContext,
  instance: NovaObject<'Instance'>,
  signal: AbortSignal,
): Promise<void> {
  const metadata = instance.find('system_metadata') ?? {};
  const imageId = metadata['shelved_image_id'];
  if (imageId === undefined || imageId === null) return;
  await glance.deleteImage(userCredentials(context), imageId, signal).catch((error: unknown) => {
    log.warn('cannot delete the snapshot of a shelved instance', { image: imageId, error });
  });
  const rest = Object.entries(metadata).filter(([key]) => !key.startsWith('shelved_'));
  instance.set('system_metadata', Object.fromEntries(rest));
}
