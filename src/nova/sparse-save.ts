// What a save sends: identity, the changed fields, and what must go with them (nova-compute-contract sections 3.3 and 3.5).
//
// The conductor overwrites nothing that it is not sent, so that a stale copy here cannot undo what others wrote.
import { type NovaObject, isA } from './objects/object.ts';
import type { FieldName, ObjectName } from './objects/table.ts';

type SaveRule = { readonly [N in ObjectName]?: readonly FieldName<N>[] };

/** Fields that the conductor needs to find the row and to judge the save. A class that is not listed is sent whole. */
const IDENTITY: SaveRule = {
  Instance: ['id', 'uuid'],
  // `version`: the conductor compares it with the oldest of the cell, and would take its own if it were not sent.
  Service: ['id', 'uuid', 'host', 'binary', 'topic', 'version'],
  ComputeNode: ['id', 'uuid', 'host', 'hypervisor_hostname'],
  Migration: ['id', 'uuid', 'instance_uuid'],
  BlockDeviceMapping: ['id', 'uuid', 'instance_uuid'],
  InstanceInfoCache: ['instance_uuid'],
  VirtualInterface: ['id', 'uuid', 'address', 'instance_uuid'],
};

/** Fields of an Instance that its save never writes. */
const NOT_SAVED: ReadonlySet<string> = new Set<FieldName<'Instance'>>([
  'pci_devices',
  'fault',
  'tags',
  'services',
  'security_groups',
  'ec2_ids',
]);

const FLAVORS = ['flavor', 'old_flavor', 'new_flavor'] as const;

/** The fields to send, undefined when nothing is to be saved. */
export function fieldsToSave(object: NovaObject): readonly string[] | undefined {
  const isInstance = isA(object, 'Instance');
  const changed = object.changes().filter((field) => !isInstance || !NOT_SAVED.has(field));
  if (changed.length === 0) return undefined;
  const identity: readonly string[] = IDENTITY[object.objectName] ?? object.setFields();
  return [...new Set([...identity, ...changed, ...(touchesFlavor(changed) && isInstance ? FLAVORS : [])])];
}

/** The flavors that must be read before a changed one can be saved. */
export function missingFlavors(instance: NovaObject<'Instance'>): readonly (typeof FLAVORS)[number][] {
  return touchesFlavor(instance.changes()) ? FLAVORS.filter((field) => !instance.has(field)) : [];
}

function touchesFlavor(fields: readonly string[]): boolean {
  return FLAVORS.some((flavor) => fields.includes(flavor));
}
