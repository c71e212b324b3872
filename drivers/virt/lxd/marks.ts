// The marks on instances that Nova owns. What does not carry them is never listed and never touched.
import type { Instance, StringMap } from '#src/client/wire.ts';
import type { SpawnSpec } from '../driver.ts';

const UUID = 'user.nova.uuid';

export function marksOf(spec: SpawnSpec): StringMap {
  return {
    [UUID]: spec.uuid,
    'user.nova.name': spec.displayName,
    'user.nova.hostname': spec.hostname,
    'user.nova.project_id': spec.projectId,
    'user.nova.user_id': spec.userId,
    'user.nova.image': spec.image.id,
  };
}

/** Nova's uuid of an instance; undefined when it is not Nova's. */
export function novaUuid(instance: Pick<Instance, 'config'>): string | undefined {
  return instance.config[UUID];
}
