// Arguments of RPC methods: each is a JSON schema, checked by ajv, and a decoder into what the operations work with.
import { Ajv, type ValidateFunction } from 'ajv';
import { AppError } from '#src/lib/errors.ts';
import { type NovaObject, expectObject, fromPrimitive } from '#src/nova/objects/object.ts';
import type { ObjectName } from '#src/nova/objects/table.ts';
import type { InjectedFile } from '../guest/injected-files.ts';
import type { WireArgs } from '#src/messaging/types.ts';

type Schema = Readonly<Record<string, unknown>>;

/** One argument. `decode` sees only what `schema` let through. */
export interface Param<T> {
  readonly schema: Schema;
  readonly isOptional: boolean;
  decode(raw: unknown): T;
}

export type Params = Readonly<Record<string, Param<unknown>>>;
export type ArgsOf<P extends Params> = {
  readonly [K in keyof P]: P[K] extends Param<infer T> ? T : never;
};

function plain<T>(schema: Schema): Param<T> {
  return { schema, isOptional: false, decode: (raw) => raw as T };
}

export const text = (): Param<string> => plain({ type: 'string', maxLength: 65_535 });
export const flag = (): Param<boolean> => plain({ type: 'boolean' });
export const dict = (): Param<Readonly<Record<string, unknown>>> => plain({ type: 'object' });
/** The id of a row. */
export const whole = (): Param<number> => plain({ type: 'integer', minimum: 1 });
export const list = (): Param<readonly unknown[]> => plain({ type: 'array', maxItems: 10_000 });
/** Personality: [path, base64] pairs. */
export const files = (): Param<readonly InjectedFile[]> =>
  plain({
    type: 'array',
    maxItems: 10_000,
    items: { type: 'array', minItems: 2, maxItems: 2, items: { type: 'string' } },
  });
/** A call sends "10" or 10, as its API took it from the user. */
export const count = (): Param<number> => ({
  schema: { anyOf: [{ type: 'integer' }, { type: 'string', pattern: '^-?[0-9]{1,15}$' }] },
  isOptional: false,
  decode: Number,
});
export const oneOf = <T extends string>(...values: readonly T[]): Param<T> => plain({ type: 'string', enum: values });

/** A versioned object of that class; any version of the same major is read. */
export function object<N extends ObjectName>(name: N): Param<NovaObject<N>> {
  return {
    schema: {
      type: 'object',
      required: ['nova_object.name', 'nova_object.version', 'nova_object.data'],
      properties: {
        'nova_object.name': { const: name },
        'nova_object.version': { type: 'string' },
        'nova_object.data': { type: 'object' },
      },
    },
    isOptional: false,
    decode: (raw) => expectObject(fromPrimitive(raw), name),
  };
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** An instance by a uuid that is one: it names files and engine objects, and every wrapper acts on it. */
export function instanceObject(): Param<NovaObject<'Instance'>> {
  const param = object('Instance');
  return {
    ...param,
    decode(raw) {
      const instance = param.decode(raw);
      if (!UUID.test(instance.get('uuid'))) throw new AppError('invalid', 'an instance without a uuid');
      return instance;
    },
  };
}

export function listOf<T>(item: Param<T>): Param<readonly T[]> {
  return {
    schema: { type: 'array', items: item.schema, maxItems: 10_000 },
    isOptional: false,
    decode: (raw) => (raw as readonly unknown[]).map((value) => item.decode(value)),
  };
}

/** A plain list of objects, or the list object of them: senders differ. */
export function listOr<T>(
  item: Param<T>,
  whole: Param<NovaObject>,
  unpack: (list: NovaObject) => readonly T[],
): Param<readonly T[]> {
  const items = listOf(item);
  return {
    schema: { anyOf: [items.schema, whole.schema] },
    isOptional: false,
    decode: (raw) => (Array.isArray(raw) ? items.decode(raw) : unpack(whole.decode(raw))),
  };
}

/** Absent and null are the same here: older senders leave out what newer ones send as null. */
export function optional<T>(param: Param<T>): Param<T | null> {
  return {
    schema: { anyOf: [param.schema, { type: 'null' }] },
    isOptional: true,
    decode: (raw) => (raw === null || raw === undefined ? null : param.decode(raw)),
  };
}

const ajv = new Ajv({ allErrors: false, strictTypes: false });

/**
 * Compiles the schema of a method's arguments, once. Arguments that we do not know are tolerated: a newer sender may have
 * more. The error names the argument, never its value: arguments carry secrets.
 */
export function compileArgs<P extends Params>(method: string, params: P): (args: WireArgs) => ArgsOf<P> {
  const entries = Object.entries(params);
  const validate = validatorOf(params);
  return (args) => {
    if (!validate(args)) throw new AppError('invalid', `${method}: ${explain(validate)}`);
    return Object.fromEntries(entries.map(([name, param]) => [name, param.decode(args[name])])) as ArgsOf<P>;
  };
}

const validators = new WeakMap<Params, ValidateFunction>();

/** Methods with the same arguments share their validator. */
function validatorOf(params: Params): ValidateFunction {
  const known = validators.get(params);
  if (known !== undefined) return known;
  const entries = Object.entries(params);
  const validate = ajv.compile({
    type: 'object',
    required: entries.filter(([, param]) => !param.isOptional).map(([name]) => name),
    properties: Object.fromEntries(entries.map(([name, param]) => [name, param.schema])),
  });
  validators.set(params, validate);
  return validate;
}

function explain(validate: ValidateFunction): string {
  const [error] = validate.errors ?? [];
  return `argument${error?.instancePath ?? ''} ${error?.message ?? 'is not valid'}`;
}
