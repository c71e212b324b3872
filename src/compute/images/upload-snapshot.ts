// The root disk of an instance into an image that the API has made (sections 5.6, 5.10 and 8.4): the guest is not stopped,
// and nothing of the content is kept here.
import type { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import type { GuestSnapshot } from '#drivers/virt/driver.ts';
import { userCredentials } from '../network/credentials.ts';
import { asNotFound } from '../power/power-operations.ts';
import { transition } from '../transition.ts';
import type { ComputeServices } from '../types.ts';
import { orImageNotFound } from './image-errors.ts';

export interface SnapshotUpload {
  readonly context: RequestContext;
  readonly instance: NovaObject<'Instance'>;
  readonly imageId: string;
  /** While the disk is read (is set already), while its content is packed, while it goes to Glance (stays). */
  readonly tasks: readonly [taken: string, pending: string, uploading: string];
}

/** Rejects with InstanceNotFound and ImageNotFound for what is absent. */
export async function uploadSnapshot(
  { virt, conductor, glance }: Pick<ComputeServices, 'virt' | 'conductor' | 'glance'>,
  { context, instance, imageId, tasks: [taken, pending, uploading] }: SnapshotUpload,
  signal: AbortSignal,
): Promise<void> {
  const credentials = userCredentials(context);
  const step = (task: string, before: string): Promise<void> =>
    transition({ conductor, context }, instance, { task_state: task }, { expectedTaskState: before });
  await using snapshot = await orInstanceNotFound(instance, virt.snapshot(instance.get('uuid'), signal));
  await step(pending, taken);
  const image = await orImageNotFound(imageId, glance.getImage(credentials, imageId, signal));
  const content = await snapshot.open(signal);
  try {
    await step(uploading, pending);
    const changes = changesOf(snapshot, instance);
    await orImageNotFound(imageId, glance.updateImage(credentials, image, changes, signal));
    await orImageNotFound(imageId, glance.upload(credentials, imageId, content, signal));
  } finally {
    content.destroy();
  }
}

/** Name, min_disk and the properties of the instance's own image are there: the API has set them. */
function changesOf({ diskFormat, containerFormat }: GuestSnapshot, instance: NovaObject<'Instance'>) {
  const owner = instance.find('project_id') ?? null;
  return {
    diskFormat,
    containerFormat,
    properties: {
      image_state: 'available',
      image_location: 'snapshot',
      ...(owner !== null && { owner_id: owner }),
    },
  };
}

async function orInstanceNotFound<T>(instance: NovaObject<'Instance'>, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw asNotFound(error, instance);
  }
}
