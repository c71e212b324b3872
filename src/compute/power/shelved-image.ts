// The snapshot that a shelved instance was kept in; of no use once the instance runs again (sections 5.4 and 5.10).
import type { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { userCredentials } from '../network/credentials.ts';
import type { ComputeServices } from '../types.ts';

/** Deletes it and drops the `shelved_*` keys; to be saved by the caller. What cannot be deleted is logged. */
export async function dropShelvedImage(
  services: Pick<ComputeServices, 'glance' | 'log'>,
  context: RequestContext,
  instance: NovaObject<'Instance'>,
  signal: AbortSignal,
): Promise<void> {
  const { imageId, metadata } = withoutShelving(instance);
  if (imageId === null) return;
  await deleteShelvedImage(services, context, imageId, signal);
  instance.set('system_metadata', metadata);
}

/** The image, and the system metadata when it is gone. */
export function withoutShelving(instance: NovaObject<'Instance'>) {
  const metadata = instance.find('system_metadata') ?? {};
  const rest = Object.entries(metadata).filter(([key]) => !key.startsWith('shelved_'));
  return { imageId: metadata['shelved_image_id'] ?? null, metadata: Object.fromEntries(rest) };
}

/** What cannot be deleted is logged. */
export async function deleteShelvedImage(
  { glance, log }: Pick<ComputeServices, 'glance' | 'log'>,
  context: RequestContext,
  imageId: string,
  signal: AbortSignal,
): Promise<void> {
  await glance.deleteImage(userCredentials(context), imageId, signal).catch((error: unknown) => {
    log.warn('cannot delete the snapshot of a shelved instance', { image: imageId, error });
  });
}
