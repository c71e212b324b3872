// Builders of JSON schemas: TypeBox's types without its runtime, of which the daemon would need what is below and keep 9 MB.
import type { TSchema, Type as TypeBox } from 'typebox';

type Schema = Readonly<Record<string, unknown>>;
type Names = 'Array' | 'Boolean' | 'Integer' | 'Number' | 'Object' | 'Optional' | 'Partial' | 'Record' | 'String';

const optional = new WeakSet<Schema>();

function object(properties: Readonly<Record<string, Schema>>, options: Schema = {}): Schema {
  const required = Object.keys(properties).filter((name) => !optional.has(properties[name] ?? {}));
  return { type: 'object', ...(required.length > 0 && { required }), properties, ...options };
}

function asOptional(schema: Schema): Schema {
  const copy = { ...schema };
  optional.add(copy);
  return copy;
}

function partial({ properties }: { readonly properties: Readonly<Record<string, Schema>> }): Schema {
  return object(Object.fromEntries(Object.entries(properties).map(([name, schema]) => [name, asOptional(schema)])));
}

const plain =
  (type: string) =>
  (options: Schema = {}): Schema => ({ type, ...options });

/** Each is TypeBox's function of that name for the compiler, and makes the schema that TypeBox makes. */
export const Type = {
  Array: (items: TSchema, options: Schema = {}): Schema => ({ type: 'array', items, ...options }),
  Boolean: plain('boolean'),
  Integer: plain('integer'),
  Number: plain('number'),
  Object: object,
  Optional: asOptional,
  Partial: partial,
  /** Of text keys alone: what JSON has. */
  Record: (_key: TSchema, value: TSchema): Schema => ({ type: 'object', additionalProperties: value }),
  String: plain('string'),
  Union: (anyOf: readonly TSchema[]): Schema => ({ anyOf }),
  Unknown: (): Schema => ({}),
} as unknown as Pick<typeof TypeBox, Names | 'Union' | 'Unknown'>;
