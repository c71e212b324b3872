// The object model against everything that a stock cell said: nothing unknown, nothing lost, nothing invented.
import { describe, expect, it } from 'vitest';
import { createObject, fromPrimitive } from '#src/nova/objects/object.ts';
import { isObjectName, schemaOf } from '#src/nova/objects/table.ts';
import { fromWire, toWire } from '#src/nova/objects/wire.ts';
import { withoutChanges } from '#src/nova/objects/primitive.ts';
import { objectsIn, recordedMessages, sorted } from './recordings.ts';

const primitives = recordedMessages.flatMap(({ message }) => objectsIn(message));

/** Reads every field of an object and of the objects in it. */
function readAll(object: any): void {
  for (const field of object.setFields()) {
    const value = object.find(field);
    const items = Array.isArray(value) ? value : [value];
    for (const item of items) if (typeof item?.toPrimitive === 'function') readAll(item);
  }
}

describe('every recorded object', () => {
  it('is there to be tested', () => {
    expect(recordedMessages.length).toBeGreaterThan(2000);
    expect(primitives.length).toBeGreaterThan(5000);
  });

  it('is of a known class, with Zed’s version and no unknown field', () => {
    const strange = new Set<string>();
    for (const primitive of primitives) {
      const name = primitive['nova_object.name'];
      if (!isObjectName(name)) {
        strange.add(name);
        continue;
      }
      const { version, fields } = schemaOf(name);
      if (primitive['nova_object.version'] !== version) strange.add(`${name} ${primitive['nova_object.version']}`);
      for (const field of Object.keys(primitive['nova_object.data'])) {
        if (!fields.has(field)) strange.add(`${name}.${field}`);
        if (fields.get(field)?.since !== undefined) strange.add(`${name}.${field} is in Zed`);
      }
    }

    expect([...strange]).toEqual([]);
  });

  it('is encoded as it was, changes included, after all of it was read', () => {
    for (const primitive of primitives) {
      const object = fromPrimitive(primitive, { keepChanges: true });
      readAll(object);

      expect(sorted(object.toPrimitive())).toEqual(sorted(primitive));
    }
  });

  it('is encoded as it was, without changes, whether it was read or not', () => {
    for (const primitive of primitives) {
      const untouched = fromPrimitive(primitive);
      const read = fromPrimitive(primitive);
      readAll(read);

      const expected = withoutChanges(primitive);
      expect(untouched.toPrimitive()).toEqual(expected);
      expect(read.toPrimitive()).toEqual(expected);
      expect(read.changes()).toEqual([]);
    }
  });

  it('can be built anew from its values', () => {
    for (const primitive of primitives) {
      const object: any = fromPrimitive(primitive);
      const values = Object.fromEntries(object.setFields().map((field: string) => [field, object.get(field)]));

      const built = createObject(object.objectName, values);

      expect(built.toPrimitive()['nova_object.data']).toEqual(
        (withoutChanges(primitive) as typeof primitive)['nova_object.data'],
      );
      expect(built.changes().toSorted()).toEqual(object.setFields().toSorted());
    }
  });
});

it('every recorded argument and result goes through the model unchanged', () => {
  for (const { message } of recordedMessages) {
    const value = message['args'] ?? message['result'] ?? null;

    expect(toWire(fromWire(value))).toEqual(withoutChanges(value));
  }
});
