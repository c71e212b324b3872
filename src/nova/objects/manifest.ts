// Which versions we ask the conductor for (nova-compute-contract sections 3.3 and 7.2, appendix A.2).
import type { FieldType } from './field-type.ts';
import { type ObjectName, isObjectName, schemaOf } from './table.ts';

export type Manifest = Readonly<Record<string, string>>;

const manifests = new Map<ObjectName, Manifest>();

/** Zed's versions of the object and of everything that Zed reaches from it; derived classes are not part of it. */
export function manifestOf(name: ObjectName): Manifest {
  let manifest = manifests.get(name);
  if (manifest === undefined) {
    const found: Record<string, string> = {};
    collect(name, found);
    manifest = Object.freeze(found);
    manifests.set(name, manifest);
  }
  return manifest;
}

function collect(name: ObjectName, found: Record<string, string>): void {
  if (found[name] !== undefined) return;
  const schema = schemaOf(name);
  found[name] = schema.version;
  for (const type of schema.fields.values()) {
    const target = type.since === undefined ? objectIn(type) : undefined;
    if (target !== undefined && isObjectName(target)) collect(target, found);
  }
}

function objectIn(type: FieldType): string | undefined {
  return type.kind === 'object' ? type.name : 'of' in type ? objectIn(type.of) : undefined;
}
