// The object table against the object model of an installed Nova (Zed): versions, fields, types and manifests.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, it } from 'vitest';
import type { FieldType } from '#src/nova/objects/field-type.ts';
import { manifestOf } from '#src/nova/objects/manifest.ts';
import { isObjectName, schemaOf } from '#src/nova/objects/table.ts';
import { describeWith } from '../support.ts';

interface Model {
  readonly version: string;
  readonly fields: Readonly<Record<string, string>>;
  readonly manifest: Readonly<Record<string, string>>;
}

/** Objects of the API's own databases, which no compute sees. */
const NOT_OURS = [
  'BuildRequestList',
  'CellMappingList',
  'EC2InstanceMapping',
  'HostMappingList',
  'InstanceMappingList',
  'QuotasNoOp',
  'S3ImageMapping',
];

function notation(type: FieldType): string {
  const inner = 'of' in type ? `<${notation(type.of)}>` : type.kind === 'object' ? `<${type.name}>` : '';
  return `${type.kind}${inner}${type.nullable ? '?' : ''}`;
}

const suite = (): void => {
  let models: Record<string, Model>;

  beforeAll(() => {
    const script = fileURLToPath(new URL('object_model.py', import.meta.url));
    const env = { PATH: '/usr/bin:/bin', LC_ALL: 'C.UTF-8', PYTHONDONTWRITEBYTECODE: '1' };
    const text = execFileSync('/usr/bin/python3', ['-W', 'ignore', script], { env, maxBuffer: 2 ** 26 }).toString();
    const { release, objects } = JSON.parse(text);
    expect(release).toMatch(/^26\./);
    models = objects;
  });

  it('has every object that a compute may meet', () => {
    const unknown = Object.keys(models).filter((name) => !isObjectName(name));

    expect(unknown.toSorted()).toEqual(NOT_OURS);
  });

  it('has the versions, the fields and the manifests of Nova', () => {
    for (const [name, model] of Object.entries(models)) {
      if (!isObjectName(name)) continue;
      const { version, fields } = schemaOf(name);
      const zed = [...fields].filter(([, type]) => type.since === undefined);
      const ours = {
        version,
        fields: Object.fromEntries(zed.map(([field, type]) => [field, notation(type)])),
        manifest: manifestOf(name),
      };

      const theirs = Object.entries(model.fields).map(([field, spec]) => [field, spec.replace('+>', '>')]);
      expect(ours, name).toEqual({ ...model, fields: Object.fromEntries(theirs) });
    }
  });
};

const isInstalled = existsSync('/usr/lib/python3/dist-packages/nova/objects/__init__.py');
if (isInstalled) describeWith({ commands: ['python3'] }, 'the object table', suite);
else it.skip('the object table (python3-nova is not installed)');
