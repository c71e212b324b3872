// Shapes that several resources share. Bodies stay open: clients PUT back whole objects, read-only fields included.
import type { Static, TProperties } from 'typebox';
import { Type } from './type.ts';

export const StringMap = Type.Record(Type.String(), Type.String());
export const DeviceMapSchema = Type.Record(Type.String(), StringMap);

export const ListQuery = Type.Object({
  recursion: Type.Optional(Type.Integer({ minimum: 0, description: '0: URLs; 1: objects' })),
  project: Type.Optional(Type.String()),
  filter: Type.Optional(Type.String()),
});
export type ListQuery = Static<typeof ListQuery>;

export const ProjectQuery = Type.Object({ project: Type.Optional(Type.String()) });

/** Params of a route with names in its path. */
export function pathParams<const Name extends string>(...names: readonly Name[]) {
  const properties = Object.fromEntries(names.map((name) => [name, Type.String({ minLength: 1 })]));
  return Type.Object(properties as Record<Name, ReturnType<typeof Type.String>>);
}

/** A body of which every member may be absent. */
export function partial<const Properties extends TProperties>(properties: Properties) {
  return Type.Partial(Type.Object(properties));
}
