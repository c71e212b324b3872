// RPC arguments and results: plain JSON in which versioned objects may appear at any depth.
import { AppError } from '#src/lib/errors.ts';
import type { ObjectFields, ObjectName } from './table.ts';
import { type EncodeOptions, NovaObject, expectObject, fromPrimitive } from './object.ts';
import { isPrimitive } from './primitive.ts';

/** Every object in `value` decoded, the rest as it is. */
export function fromWire(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(fromWire);
  if (isPrimitive(value)) return fromPrimitive(value);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, fromWire(item)]));
}

/** JSON of a value with objects, dates (as Nova's jsonutils writes them, section 3.2) and sets in it. */
export function toWire(value: unknown, options: EncodeOptions = {}): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (value instanceof NovaObject) return value.toPrimitive(options);
  if (value instanceof Date) return wireTime(value);
  if (Array.isArray(value) || value instanceof Set) return [...value].map((item) => toWire(item, options));
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, item]) => item !== undefined)
      .map(([key, item]) => [key, toWire(item, options)]),
  );
}

/** `YYYY-MM-DDTHH:MM:SS.ffffff`, UTC, without a zone. */
export function wireTime(date: Date): string {
  return date.toISOString().replace('Z', '000');
}

type ListName = { [N in ObjectName]: N extends `${string}List` ? N : never }[ObjectName];
type ItemOf<L extends ListName> = ObjectFields[L] extends { readonly objects: readonly (infer I)[] } ? I : never;

/** The items of a list object, such as those of an InstanceList. */
export function objectsOf<L extends ListName>(list: NovaObject<L>): readonly ItemOf<L>[] {
  const objects: unknown = (list as unknown as NovaObject<'InstanceList'>).find('objects');
  if (!Array.isArray(objects)) throw new AppError('invalid', `${list.objectName} without objects`);
  return objects;
}

/** The items of a result that must be the list object `name`. */
export function expectList<L extends ListName>(value: unknown, name: L): readonly ItemOf<L>[] {
  return objectsOf(expectObject(value, name));
}
