// Payload keys that are copies of object fields.
import type { NovaObject } from '../objects/object.ts';
import type { FieldName, ObjectName } from '../objects/table.ts';

/** JSON of fields under the names of a payload; what is not loaded is null. */
export function copyFields<N extends ObjectName>(
  object: NovaObject<N>,
  names: Readonly<Record<string, FieldName<N>>>,
): Record<string, unknown> {
  const data = object.toPrimitive({ fields: Object.values(names) })['nova_object.data'];
  return Object.fromEntries(Object.entries(names).map(([key, field]) => [key, data[field] ?? null]));
}

/** The same for fields that keep their names. */
export function sameFields<N extends ObjectName>(
  object: NovaObject<N>,
  fields: readonly FieldName<N>[],
): Record<string, unknown> {
  return copyFields(object, Object.fromEntries(fields.map((field) => [field, field])));
}
