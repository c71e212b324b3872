// The marks on instances that Nova owns. What does not carry them is never listed and never touched.
import type { Instance, StringMap } from '#src/client/wire.ts';
import type { GuestSpec } from '../driver.ts';

/** On instances and on volumes that belong to one. */
export const UUID_MARK = 'user.nova.uuid';

/** On a guest that was fetched from another host, until it is this host's. */
const ARRIVING = 'user.nova.arriving';

export function marksOf(spec: GuestSpec): StringMap {
  return {
    [UUID_MARK]: spec.uuid,
    'user.nova.name': spec.displayName,
    'user.nova.hostname': spec.hostname,
    'user.nova.project_id': spec.projectId,
    'user.nova.user_id': spec.userId,
    'user.nova.image': spec.imageId,
  };
}

const RESCUED = 'user.nova.rescued';

/** Of the guest that stands for a rescued instance: unlike the instance's own no template makes it. */
export function rescueName(uuid: string): string {
  return `rescue-${uuid}`;
}

/** On a rescue guest, beside the marks of the instance: the name of the instance's own guest. */
export function rescueMark(name: string): StringMap {
  return { [RESCUED]: name };
}

/** The name of the guest that this one stands for; undefined when it is the instance's own. */
export function rescuedName(instance: Pick<Instance, 'config'>): string | undefined {
  return instance.config[RESCUED];
}

/** Nova's uuid of an instance; undefined when it is not Nova's. */
export function novaUuid(instance: Pick<Instance, 'config'>): string | undefined {
  return instance.config[UUID_MARK];
}

export const arrivingMark: StringMap = { [ARRIVING]: 'true' };

export function isArriving(instance: Pick<Instance, 'config'>): boolean {
  return instance.config[ARRIVING] === 'true';
}

export function withoutArriving({ [ARRIVING]: _mark, ...config }: StringMap): StringMap {
  return config;
}
