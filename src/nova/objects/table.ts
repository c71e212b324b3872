// The one table of Nova's versioned objects (nova-compute-contract appendix A) and the static types it yields.
import { AppError } from '#src/lib/errors.ts';
import { type FieldType, parseFieldType } from './field-type.ts';
import type { NovaObject } from './object.ts';
import { cpuObjects } from './tables/cpu.ts';
import { type ObjectDefinition, stampFields } from './tables/definition.ts';
import { devicesObjects } from './tables/devices.ts';
import { instanceObjects } from './tables/instance.ts';
import { movesObjects } from './tables/moves.ts';
import { nodeObjects } from './tables/node.ts';
import { othersObjects } from './tables/others.ts';
import { schedulingObjects } from './tables/scheduling.ts';
import { storageObjects } from './tables/storage.ts';

export const objectTable = {
  ...nodeObjects,
  ...instanceObjects,
  ...devicesObjects,
  ...cpuObjects,
  ...schedulingObjects,
  ...storageObjects,
  ...movesObjects,
  ...othersObjects,
} as const satisfies Record<string, ObjectDefinition>;

type Table = typeof objectTable;
export type ObjectName = keyof Table;

type Stamps = typeof stampFields;
type StampsOf<D> = D extends { readonly stamps: infer S extends keyof Stamps } ? Stamps[S] : unknown;
type InheritedBy<D> = D extends { readonly extends: infer B extends ObjectName } ? FieldSpecs<B> : unknown;
type FieldSpecs<N extends ObjectName> = Table[N]['fields'] & StampsOf<Table[N]> & InheritedBy<Table[N]>;

/** The classes derived from N, and N itself. */
type Family<N extends ObjectName> = N | { [K in ObjectName]: Table[K] extends { extends: N } ? K : never }[ObjectName];
type AnyOf<N extends ObjectName> = N extends ObjectName ? NovaObject<N> : never;

/** The value of a field specification; see tables/definition.ts for the grammar. */
type ValueOf<S> = S extends `${infer T} since ${string}`
  ? ValueOf<T>
  : S extends `${infer T}?`
    ? ValueOf<T> | null
    : S extends `list<${infer T}>`
      ? readonly ValueOf<T>[]
      : S extends `set<${infer T}>`
        ? ReadonlySet<ValueOf<T>>
        : S extends `dict<${infer T}>`
          ? Readonly<Record<string, ValueOf<T>>>
          : ScalarOf<S>;
type ScalarOf<S> = S extends 'string' | 'secret'
  ? string
  : S extends 'integer' | 'float'
    ? number
    : S extends 'boolean'
      ? boolean
      : S extends 'datetime'
        ? Date
        : S extends `object<${infer N extends ObjectName}+>`
          ? AnyOf<Family<N>>
          : S extends `object<${infer N extends ObjectName}>`
            ? NovaObject<N>
            : never;

/** What each object holds, field by field; `ObjectFields['Instance']['vm_state']` is `string | null`. */
export type ObjectFields = {
  readonly [N in ObjectName]: { readonly [F in keyof FieldSpecs<N>]: ValueOf<FieldSpecs<N>[F]> };
};
export type FieldName<N extends ObjectName> = keyof ObjectFields[N] & string;
export type FieldValue<N extends ObjectName, F extends FieldName<N>> = ObjectFields[N][F];

export function isObjectName(name: string): name is ObjectName {
  return Object.hasOwn(objectTable, name);
}

/** One object of the table, ready for the codec: inherited fields included, specifications parsed. */
export interface ObjectSchema {
  readonly name: ObjectName;
  readonly version: string;
  readonly fields: ReadonlyMap<string, FieldType>;
}

const schemas = new Map<ObjectName, ObjectSchema>();

export function schemaOf(name: ObjectName): ObjectSchema {
  let schema = schemas.get(name);
  if (schema === undefined) {
    schema = { name, version: objectTable[name].version, fields: fieldTypesOf(name) };
    schemas.set(name, schema);
  }
  return schema;
}

function fieldTypesOf(name: ObjectName): ReadonlyMap<string, FieldType> {
  const definition: ObjectDefinition = objectTable[name];
  const base = definition.extends;
  if (base !== undefined && !isObjectName(base)) throw new AppError('internal', `${name} extends unknown ${base}`);
  const own = { ...definition.fields, ...(definition.stamps === undefined ? {} : stampFields[definition.stamps]) };
  return new Map<string, FieldType>([
    ...(base === undefined ? [] : schemaOf(base).fields),
    ...Object.entries(own).map(([field, spec]) => [field, parseFieldType(spec)] as const),
  ]);
}
