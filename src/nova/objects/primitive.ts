// The JSON form of a versioned object (nova-compute-contract section 3.1).

export interface Primitive {
  readonly 'nova_object.name': string;
  readonly 'nova_object.namespace': string;
  readonly 'nova_object.version': string;
  /** Only the fields that are set: unset is not null. */
  readonly 'nova_object.data': Readonly<Record<string, unknown>>;
  readonly 'nova_object.changes'?: readonly string[];
}

export function isPrimitive(value: unknown): value is Primitive {
  return (
    typeof value === 'object' &&
    value !== null &&
    'nova_object.name' in value &&
    'nova_object.data' in value &&
    typeof value['nova_object.name'] === 'string' &&
    typeof value['nova_object.data'] === 'object' &&
    value['nova_object.data'] !== null
  );
}

/** A copy of any wire value without the `changes` of the objects in it, each with the label that `label` gives it. */
export function withoutChanges(value: unknown, label?: (object: Primitive) => string): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map((item) => withoutChanges(item, label));
  const isLabelled = label !== undefined && isPrimitive(value);
  // fromEntries, not assignment: a user's metadata may have a key `__proto__`.
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => key !== 'nova_object.changes')
      .map(([key, inner]) => [
        key,
        isLabelled && key === 'nova_object.version' ? label(value) : withoutChanges(inner, label),
      ]),
  );
}

/** True when two wire values are the same JSON, key order aside. */
export function sameJson(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (Array.isArray(a) && Array.isArray(b)) {
    return a.length === b.length && a.every((item, index) => sameJson(item, b[index]));
  }
  return isDict(a) && isDict(b) && sameDict(a, b);
}

function sameDict(a: Readonly<Record<string, unknown>>, b: Readonly<Record<string, unknown>>): boolean {
  const keys = Object.keys(a);
  return (
    keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && sameJson(a[key], b[key]))
  );
}

function isDict(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
