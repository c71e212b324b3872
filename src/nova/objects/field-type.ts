// Field specifications of the object table, parsed for the codec; the grammar is in tables/definition.ts.
import { AppError } from '#src/lib/errors.ts';

export type ScalarKind = 'string' | 'secret' | 'integer' | 'float' | 'boolean' | 'datetime';

interface Common {
  readonly nullable: boolean;
  /** First release that has the field, when it is newer than Zed. */
  readonly since?: string;
}
export interface ScalarType extends Common {
  readonly kind: ScalarKind;
}
export interface ObjectType extends Common {
  readonly kind: 'object';
  readonly name: string;
}
export interface ContainerType extends Common {
  readonly kind: 'list' | 'set' | 'dict';
  readonly of: FieldType;
}
export type FieldType = ScalarType | ObjectType | ContainerType;

const SPEC = /^(?<type>\w+)(?:<(?<inner>.+)>)?(?<nullable>\?)?(?: since (?<since>[\d.]+))?$/;
const SCALARS: ReadonlySet<string> = new Set<ScalarKind>([
  'string',
  'secret',
  'integer',
  'float',
  'boolean',
  'datetime',
]);

export function parseFieldType(spec: string): FieldType {
  const { type = '', inner, nullable, since } = SPEC.exec(spec)?.groups ?? {};
  const common: Common = { nullable: nullable === '?', ...(since === undefined ? {} : { since }) };
  if (inner === undefined) {
    if (isScalar(type)) return { kind: type, ...common };
  } else if (type === 'object') {
    return { kind: 'object', name: inner.replace(/\+$/, ''), ...common };
  } else if (isContainer(type)) {
    return { kind: type, of: parseFieldType(inner), ...common };
  }
  throw new AppError('internal', `object table: cannot read the field type '${spec}'`);
}

function isContainer(type: string): type is ContainerType['kind'] {
  return type === 'list' || type === 'set' || type === 'dict';
}

function isScalar(type: string): type is ScalarKind {
  return SCALARS.has(type);
}

export function holdsObjects(type: FieldType): boolean {
  return type.kind === 'object' || ('of' in type && holdsObjects(type.of));
}
