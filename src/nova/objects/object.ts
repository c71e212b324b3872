// One versioned object: which fields are set, which were changed, and its JSON form (nova-compute-contract section 3).
import { AppError } from '#src/lib/errors.ts';
import { holdsObjects } from './field-type.ts';
import { lowerVersion, sameMajor } from './object-version.ts';
import { type Primitive, isPrimitive, sameJson, withoutChanges } from './primitive.ts';
import {
  type FieldName,
  type FieldValue,
  type ObjectFields,
  type ObjectName,
  type ObjectSchema,
  isObjectName,
  schemaOf,
} from './table.ts';
import { decodeValue, encodeValue, inField, type ObjectCodec } from './values.ts';

export interface DecodeOptions {
  /** Keep the received `changes` instead of stripping them; for tools and tests, never for messages that we act on. */
  readonly keepChanges?: boolean;
}

export interface EncodeOptions {
  /** `received` (default) forwards each object's own label; `zed` never exceeds Zed's, as conductors need it. */
  readonly label?: 'received' | 'zed';
  /** Send only these of the set fields. */
  readonly fields?: Iterable<string>;
}

interface State {
  readonly version: string;
  readonly data: Readonly<Record<string, unknown>>;
  readonly changes: Iterable<string>;
  readonly keepChanges: boolean;
}

/** Which fields were changed, and when: what `settle` may forget once they are saved. */
export type ChangeMark = ReadonlyMap<string, number>;

let clock = 0;

/**
 * A versioned object. Fields are decoded when they are first read; what was received and never read is forwarded as it came,
 * unknown fields included. Unset and null differ: unset is "not loaded", null is "known to be none".
 */
export class NovaObject<N extends ObjectName = ObjectName> {
  readonly objectName: N;
  /** As received, or Zed's for an object made here. */
  readonly version: string;
  readonly #schema: ObjectSchema;
  readonly #keepChanges: boolean;
  /** JSON of the set fields; of a field that holds objects only what was received, see #values. */
  readonly #raw: Map<string, unknown>;
  /** Fields that were read or set. */
  readonly #values = new Map<string, unknown>();
  readonly #changed = new Map<string, number>();

  /** Use createObject() and fromPrimitive(). */
  constructor(name: N, state: State) {
    this.objectName = name;
    this.version = state.version;
    this.#schema = schemaOf(name);
    this.#keepChanges = state.keepChanges;
    this.#raw = new Map(Object.entries(state.data));
    for (const field of state.changes) this.#changed.set(field, ++clock);
  }

  has(field: FieldName<N>): boolean {
    return this.#raw.has(field);
  }

  /** The value of a set field; asking an unset one is a mistake of the caller (`internal`). */
  get<F extends FieldName<N>>(field: F): FieldValue<N, F> {
    if (!this.#raw.has(field)) throw new AppError('internal', `${this.objectName}.${field} is not set`);
    return this.#decoded(field) as FieldValue<N, F>;
  }

  /** Undefined when the field is unset. */
  find<F extends FieldName<N>>(field: F): FieldValue<N, F> | undefined {
    return this.#raw.has(field) ? (this.#decoded(field) as FieldValue<N, F>) : undefined;
  }

  /** Sets the field and records the change; a value equal to the present one is not a change. */
  set<F extends FieldName<N>>(field: F, value: FieldValue<N, F>): this {
    const json = this.#encoded(field, value, {});
    const isSame = this.#raw.has(field) && sameJson(json, this.#fieldJson(field, {}));
    this.#raw.set(field, json);
    this.#values.set(field, value);
    if (!isSame) this.#changed.set(field, ++clock);
    return this;
  }

  /** Sets the field as if it had been received: not a change. For lazy loads. */
  load<F extends FieldName<N>>(field: F, value: FieldValue<N, F>): this {
    this.#raw.set(field, this.#encoded(field, value, {}));
    this.#values.set(field, value);
    this.#changed.delete(field);
    return this;
  }

  /** Names of all set fields, unknown ones included. */
  setFields(): readonly string[] {
    return [...this.#raw.keys()];
  }

  /** Fields to be saved, those whose nested object has changes included. Objects in a plain list do not count, as in Nova. */
  changes(): readonly string[] {
    const all = new Set(this.#changed.keys());
    for (const [field, type] of this.#schema.fields) {
      const mayHold = type.kind === 'object' || (field === 'objects' && type.kind === 'list');
      if (mayHold && this.#nested(field).some((object) => object.changes().length > 0)) all.add(field);
    }
    return [...all];
  }

  /** Makes this object and everything in it unchanged. */
  resetChanges(): void {
    this.#changed.clear();
    for (const field of this.#values.keys()) for (const object of this.#nested(field)) object.resetChanges();
  }

  markChanges(): ChangeMark {
    return new Map(this.#changed);
  }

  /** After a save: `updates` of the conductor replace fields, and the marked changes are done unless made anew since. */
  settle(mark: ChangeMark, updates: Readonly<Record<string, unknown>>): void {
    for (const [field, at] of mark) if (this.#changed.get(field) === at) this.#changed.delete(field);
    for (const [field, value] of Object.entries(updates)) {
      if (field === 'obj_what_changed' || this.#changed.has(field)) continue;
      this.#raw.set(field, this.#keepChanges ? withoutChanges(value) : value);
      this.#values.delete(field);
    }
    for (const field of this.#values.keys()) {
      if (!this.#changed.has(field)) for (const object of this.#nested(field)) object.resetChanges();
    }
  }

  toPrimitive(options: EncodeOptions = {}): Primitive {
    const wanted = options.fields === undefined ? undefined : new Set(options.fields);
    const inner: EncodeOptions = options.label === undefined ? {} : { label: options.label };
    const isSent = (field: string): boolean => wanted === undefined || wanted.has(field);
    const sent = [...this.#raw.keys()].filter(isSent);
    const data = Object.fromEntries(sent.map((field) => [field, this.#fieldJson(field, inner)]));
    const changes = this.changes().filter(isSent);
    return {
      'nova_object.name': this.objectName,
      'nova_object.namespace': 'nova',
      'nova_object.version': options.label === 'zed' ? lowerVersion(this.version, this.#schema.version) : this.version,
      'nova_object.data': data,
      ...(changes.length === 0 ? {} : { 'nova_object.changes': changes }),
    };
  }

  /** What a log shows: never the fields, some are secret. */
  toJSON(): Readonly<Record<string, unknown>> {
    const id = ['uuid', 'instance_uuid', 'id'].find((field) => this.#raw.has(field));
    return { object: this.objectName, ...(id === undefined ? {} : { [id]: this.#raw.get(id) }) };
  }

  #decoded(field: string): unknown {
    if (this.#values.has(field)) return this.#values.get(field);
    const type = this.#schema.fields.get(field);
    if (type === undefined) throw new AppError('internal', `${this.objectName} has no field ${field}`);
    const options = { keepChanges: this.#keepChanges };
    const codec: ObjectCodec = { decode: (raw) => fromPrimitive(raw, options), encode: () => undefined };
    try {
      const value = decodeValue(type, this.#raw.get(field), codec);
      this.#values.set(field, value);
      return value;
    } catch (error) {
      throw inField(this.objectName, field, error);
    }
  }

  #encoded(field: string, value: unknown, options: EncodeOptions): unknown {
    const type = this.#schema.fields.get(field);
    if (type === undefined) throw new AppError('internal', `${this.objectName} has no field ${field}`);
    const codec: ObjectCodec = {
      decode: (raw) => raw,
      encode: (object) => (object instanceof NovaObject ? object.toPrimitive(options) : undefined),
    };
    try {
      return encodeValue(type, value, codec);
    } catch (error) {
      throw inField(this.objectName, field, error);
    }
  }

  /** Objects may have been edited in place, so they are encoded anew; everything else is kept as JSON. */
  #fieldJson(field: string, options: EncodeOptions): unknown {
    const type = this.#schema.fields.get(field);
    const raw = this.#raw.get(field);
    if (type !== undefined && !holdsObjects(type)) return raw;
    const isLoaded = this.#values.has(field) || (this.#keepChanges && type !== undefined);
    const value = isLoaded ? this.#decoded(field) : undefined;
    // A received null is forwarded even where the table has none: a newer release may be more liberal.
    if (isLoaded) return value === null ? null : this.#encoded(field, value, options);
    if (this.#keepChanges) return raw;
    return withoutChanges(raw, options.label === 'zed' ? zedLabel : undefined);
  }

  /** Objects of a field that may have changes: those read or set before, or all when received changes are kept. */
  #nested(field: string): readonly NovaObject[] {
    const isLoaded = this.#values.has(field) || (this.#keepChanges && this.#raw.has(field));
    const value = isLoaded ? this.#decoded(field) : undefined;
    return (Array.isArray(value) ? value : [value]).filter((item) => item instanceof NovaObject);
  }
}

function zedLabel(object: Primitive): string {
  const name = object['nova_object.name'];
  const version = object['nova_object.version'];
  return isObjectName(name) ? lowerVersion(version, schemaOf(name).version) : version;
}

/** A new object, with Zed's label; every given field counts as changed. */
export function createObject<N extends ObjectName>(name: N, fields: Partial<ObjectFields[N]>): NovaObject<N> {
  const version = schemaOf(name).version;
  const object = new NovaObject(name, { version, data: {}, changes: [], keepChanges: false });
  for (const [field, value] of Object.entries(fields)) {
    object.set(field as FieldName<N>, value as FieldValue<N, FieldName<N>>);
  }
  return object;
}

/**
 * Reads an object leniently (section 3.4): unknown fields and the received version are kept for forwarding, `changes` are
 * dropped on all levels. Rejects (`invalid`) what is no object, an unknown class and another major version.
 */
export function fromPrimitive(raw: unknown, options: DecodeOptions = {}): NovaObject {
  if (!isPrimitive(raw)) throw new AppError('invalid', 'not a Nova object');
  const name = raw['nova_object.name'];
  const version = raw['nova_object.version'];
  if (!isObjectName(name)) throw new AppError('invalid', `unknown Nova object ${name}`);
  if (!sameMajor(version, schemaOf(name).version)) {
    throw new AppError('invalid', `${name} ${version} is not compatible with ${schemaOf(name).version}`);
  }
  const keepChanges = options.keepChanges === true;
  const changes = keepChanges ? (raw['nova_object.changes'] ?? []) : [];
  return new NovaObject(name, { version, data: raw['nova_object.data'], changes, keepChanges });
}

export function isA<N extends ObjectName>(value: unknown, name: N): value is NovaObject<N> {
  return value instanceof NovaObject && value.objectName === name;
}

/** `value` as an object of the class `name`; anything else is `invalid`. */
export function expectObject<N extends ObjectName>(value: unknown, name: N): NovaObject<N> {
  if (isA(value, name)) return value;
  const got = value instanceof NovaObject ? value.objectName : typeof value;
  throw new AppError('invalid', `expected a ${name}, got ${got}`);
}
