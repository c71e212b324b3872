// Versioned objects: set and unset fields, changes, leniency in reading, strictness in writing.
import * as fc from 'fast-check';
import { describe, expect, expectTypeOf, it } from 'vitest';
import type { FieldType } from '#src/nova/objects/field-type.ts';
import { type NovaObject, createObject, expectObject, fromPrimitive, isA } from '#src/nova/objects/object.ts';
import { type ObjectName, isObjectName, objectTable, schemaOf } from '#src/nova/objects/table.ts';
import { expectList, fromWire, objectsOf, toWire } from '#src/nova/objects/wire.ts';

const primitive = (name: string, data: Record<string, unknown>, rest: Record<string, unknown> = {}) => ({
  'nova_object.name': name,
  'nova_object.namespace': 'nova',
  'nova_object.version': isObjectName(name) ? schemaOf(name).version : '1.0',
  'nova_object.data': data,
  ...rest,
});
const instanceFrom = (data: Record<string, unknown>, rest = {}) =>
  expectObject(fromPrimitive(primitive('Instance', data, rest)), 'Instance');

describe('fields', () => {
  it('tell unset from null', () => {
    const instance = instanceFrom({ uuid: 'u', task_state: null });

    expect(instance.has('task_state')).toBe(true);
    expect(instance.get('task_state')).toBeNull();
    expect(instance.has('vm_state')).toBe(false);
    expect(instance.find('vm_state')).toBeUndefined();
    expect(() => instance.get('vm_state')).toThrow('Instance.vm_state is not set');
    expect(instance.toPrimitive()['nova_object.data']).toEqual({ uuid: 'u', task_state: null });
  });

  it('have the types of the table', () => {
    const instance = instanceFrom({});
    const numa = createObject('InstanceNUMACell', {});
    const bus = createObject('NetworkInterfaceMetadata', {}).find('bus');

    expectTypeOf(instance.find('vm_state')).toEqualTypeOf<string | null | undefined>();
    expectTypeOf(instance.find('launched_at')).toEqualTypeOf<Date | null | undefined>();
    expectTypeOf(instance.find('created_at')).toEqualTypeOf<Date | null | undefined>();
    expectTypeOf(instance.find('flavor')).toEqualTypeOf<NovaObject<'Flavor'> | undefined>();
    expectTypeOf(instance.find('system_metadata')).toEqualTypeOf<Readonly<Record<string, string | null>> | undefined>();
    expectTypeOf(instance.find('compute_id')).toEqualTypeOf<number | null | undefined>();
    expectTypeOf(numa.find('cpuset')).toEqualTypeOf<ReadonlySet<number> | undefined>();
    expectTypeOf<NovaObject<'PCIDeviceBus'>>().toExtend<NonNullable<typeof bus>>();
    expectTypeOf(instance).toExtend<NovaObject>();
    // @ts-expect-error a number is no string
    expect(() => instance.set('vm_state', 5)).toThrow('Instance.vm_state: not a string');
    // @ts-expect-error there is no such field
    expect(() => instance.set('vm_stat', 'active')).toThrow('Instance has no field vm_stat');
  });

  it('are read leniently, as Nova coerces them', () => {
    const instance = instanceFrom({
      vcpus: '2',
      memory_mb: 512.9,
      display_name: 7,
      locked: 'yes',
      launched_at: '2026-01-02 03:04:05.678',
      created_at: '2026-01-02T03:04:05+01:00',
    });

    expect(instance.get('vcpus')).toBe(2);
    expect(instance.get('memory_mb')).toBe(512);
    expect(instance.get('display_name')).toBe('7');
    expect(instance.get('locked')).toBe(true);
    expect(instance.get('launched_at')).toEqual(new Date('2026-01-02T03:04:05.678Z'));
    expect(instance.get('created_at')).toEqual(new Date('2026-01-02T02:04:05Z'));
  });

  it('that cannot be read say which they are', () => {
    const instance = instanceFrom({ vcpus: 'many', info_cache: 5, metadata: [] });

    expect(() => instance.get('vcpus')).toThrow('Instance.vcpus: cannot read string as number');
    expect(() => instance.get('info_cache')).toThrow('Instance.info_cache: not a Nova object');
    expect(() => instance.get('metadata')).toThrow(expect.objectContaining({ kind: 'invalid' }));
  });

  it('are written strictly', () => {
    const instance = createObject('Instance', { uuid: 'u' });

    expect(() => instance.set('vcpus', 1.5)).toThrow('not a integer');
    expect(() => instance.set('launched_at', new Date(NaN))).toThrow('not a datetime');
    expect(() => instance.set('metadata', { a: null } as any)).toThrow('Instance.metadata: not nullable');
    expect(() => instance.set('flavor', {} as any)).toThrow('not a Flavor object');
    expect(instance.changes()).toEqual(['uuid']);
  });
});

describe('changes', () => {
  it('are what was set to something else', () => {
    const instance = instanceFrom({ task_state: 'spawning', metadata: { a: '1', b: '2' }, launched_at: null });

    instance.set('task_state', 'spawning').set('metadata', { b: '2', a: '1' });
    expect(instance.changes()).toEqual([]);

    instance.set('task_state', null).set('launched_at', new Date('2026-01-01T00:00:00Z'));
    expect(instance.changes()).toEqual(['task_state', 'launched_at']);
    expect(instance.toPrimitive()).toMatchObject({
      'nova_object.data': { task_state: null, launched_at: '2026-01-01T00:00:00Z' },
      'nova_object.changes': ['task_state', 'launched_at'],
    });

    instance.resetChanges();
    expect(instance.toPrimitive()).not.toHaveProperty('nova_object.changes');
  });

  it('of a new object are all its fields', () => {
    const fault = createObject('InstanceFault', { code: 500, message: 'x' });

    expect(fault.version).toBe('1.2');
    expect(fault.changes()).toEqual(['code', 'message']);
  });

  it('of a nested object make its field changed, and are gone with the parent’s', () => {
    const cache = primitive('InstanceInfoCache', { instance_uuid: 'u', network_info: '[]' });
    const instance = instanceFrom({ uuid: 'u', info_cache: cache });

    instance.get('info_cache')?.set('network_info', '[1]');

    expect(instance.changes()).toEqual(['info_cache']);
    expect(instance.toPrimitive()['nova_object.data']['info_cache']).toMatchObject({
      'nova_object.data': { network_info: '[1]' },
      'nova_object.changes': ['network_info'],
    });

    instance.resetChanges();
    expect(instance.get('info_cache')?.changes()).toEqual([]);
  });

  it('that were received are dropped on every level, read or not', () => {
    const flavor = primitive('Flavor', { id: 1 }, { 'nova_object.changes': ['id'] });
    const read = instanceFrom({ flavor, old_flavor: null }, { 'nova_object.changes': ['flavor'] });
    const unread = instanceFrom({ flavor }, { 'nova_object.changes': ['flavor'] });

    expect(read.get('flavor').changes()).toEqual([]);
    expect(JSON.stringify([read.toPrimitive(), unread.toPrimitive()])).not.toContain('changes');
  });

  it('of a lazily loaded field are none', () => {
    const instance = instanceFrom({ uuid: 'u' });

    instance
      .load('tags', createObject('TagList', { objects: [] }))
      .get('tags')
      .resetChanges();

    expect(instance.changes()).toEqual([]);
    expect(instance.has('tags')).toBe(true);
  });
});

describe('objects of a newer release', () => {
  const newer = {
    ...primitive('Instance', { uuid: 'u', compute_id: 4, shiny: primitive('Shiny', { a: 1 }), flavor: null }),
    'nova_object.version': '2.12',
  };

  it('are forwarded complete, with their own label', () => {
    const instance = expectObject(fromPrimitive(newer), 'Instance');

    expect(instance.get('compute_id')).toBe(4);
    expect(instance.get('flavor')).toBeNull();
    expect(instance.version).toBe('2.12');
    expect(instance.toPrimitive()).toEqual(newer);
  });

  it('get Zed’s label for the conductor', () => {
    expect(fromPrimitive(newer).toPrimitive({ label: 'zed' })['nova_object.version']).toBe('2.7');
    const older = { ...newer, 'nova_object.version': '2.3' };
    expect(fromPrimitive(older).toPrimitive({ label: 'zed' })['nova_object.version']).toBe('2.3');
  });

  it('of another major version or an unknown class are refused', () => {
    expect(() => fromPrimitive({ ...newer, 'nova_object.version': '3.0' })).toThrow('Instance 3.0 is not compatible');
    expect(() => fromPrimitive(primitive('Shiny', {}))).toThrow('unknown Nova object Shiny');
    expect(() => fromPrimitive({ uuid: 'u' })).toThrow('not a Nova object');
    expect(() => fromPrimitive(null)).toThrow('not a Nova object');
  });
});

it('an object shows a log its identity only', () => {
  const bdm = createObject('BlockDeviceMapping', { uuid: 'b', connection_info: 'secret' });

  expect(JSON.stringify({ bdm })).toBe('{"bdm":{"object":"BlockDeviceMapping","uuid":"b"}}');
});

it('arguments and results may hold objects, dates and sets anywhere', () => {
  const wire = { list: [primitive('Tag', { tag: 'a' })], plain: { n: 1, none: null } };
  const decoded = fromWire(wire) as any;

  expect(isA(decoded.list[0], 'Tag')).toBe(true);
  expect(isA(decoded.list[0], 'TagList')).toBe(false);
  expect(toWire(decoded)).toEqual(wire);
  expect(toWire({ at: new Date('2026-01-02T03:04:05.678Z'), of: new Set([1]), no: undefined })).toEqual({
    at: '2026-01-02T03:04:05.678000',
    of: [1],
  });
});

it('lists give their items', () => {
  const list = createObject('TagList', { objects: [createObject('Tag', { tag: 'a' })] });

  expect(objectsOf(list).map((tag) => tag.get('tag'))).toEqual(['a']);
  expect(() => expectList(list, 'InstanceList')).toThrow('expected a InstanceList, got TagList');
  expect(() => expectList(null, 'InstanceList')).toThrow('expected a InstanceList, got object');
});

describe('any object', () => {
  /** Values of a field; objects nest two levels deep. */
  function valueOf(type: FieldType, depth: number): fc.Arbitrary<unknown> {
    const value = ((): fc.Arbitrary<unknown> => {
      switch (type.kind) {
        case 'string':
        case 'secret':
          return fc.string();
        case 'integer':
          return fc.integer();
        case 'float':
          return fc.double({ noNaN: true, noDefaultInfinity: true }).map((n) => (Object.is(n, -0) ? 0 : n));
        case 'boolean':
          return fc.boolean();
        case 'datetime':
          return fc
            .date({ min: new Date('1970-01-01'), max: new Date('9999-01-01'), noInvalidDate: true })
            .map((date) => new Date(Math.floor(date.getTime() / 1000) * 1000));
        case 'object':
          return objectOf(type.name as ObjectName, depth - 1);
        case 'list':
          return fc.array(valueOf(type.of, depth), { maxLength: 3 });
        case 'set':
          return fc.uniqueArray(valueOf(type.of, depth), { maxLength: 3 }).map((items) => new Set(items));
        case 'dict':
          return fc.dictionary(fc.oneof(fc.string(), fc.constant('__proto__')), valueOf(type.of, depth), {
            maxKeys: 3,
            noNullPrototype: true,
          });
      }
    })();
    return type.nullable ? fc.option(value) : value;
  }

  function objectOf(name: ObjectName, depth: number): fc.Arbitrary<NovaObject> {
    const fields = [...schemaOf(name).fields].filter(
      ([, type]) => depth > 0 || !JSON.stringify(type).includes('object'),
    );
    const shape = Object.fromEntries(fields.map(([field, type]) => [field, valueOf(type, depth)]));
    return fc.record(shape, { requiredKeys: [] }).map((values) => createObject(name, values as any));
  }

  const anyObject = fc.constantFrom(...(Object.keys(objectTable) as ObjectName[])).chain((name) => objectOf(name, 2));

  it('survives the wire with all its values', () => {
    fc.assert(
      fc.property(anyObject, (object: any) => {
        const wire = JSON.parse(JSON.stringify(object.toPrimitive()));
        const back: any = fromPrimitive(wire, { keepChanges: true });

        expect(back.toPrimitive()).toEqual(wire);
        for (const field of object.setFields()) {
          const type = schemaOf(object.objectName).fields.get(field);
          if (JSON.stringify(type).includes('"object"')) continue;
          expect(back.get(field)).toEqual(object.get(field));
        }
      }),
      { numRuns: 150 },
    );
  });

  it('has no change when its own values are set again', () => {
    fc.assert(
      fc.property(anyObject, (object: any) => {
        object.resetChanges();
        for (const field of object.setFields()) object.set(field, object.get(field));

        expect(object.changes()).toEqual([]);
      }),
      { numRuns: 100 },
    );
  });
});
