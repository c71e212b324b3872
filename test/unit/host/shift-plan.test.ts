// The arithmetic of id maps.
import { assert, nat, property } from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type IdMapRange, idMapKey, parseIdMapKey, sameIdMap } from '#src/host/id-map.ts';
import { planShift } from '#src/host/shift-plan.ts';

const MAP: IdMapRange = { uidBase: 100_000, gidBase: 200_000, size: 65_536 };
const OTHER: IdMapRange = { uidBase: 900_000, gidBase: 950_000, size: 65_536 };
/** security.capability, revision 2: cap_net_raw, effective. */
const CAP_2 = Buffer.from('0100000200200000000000000000000000000000', 'hex');

function acl(...entries: readonly (readonly [tag: number, permissions: number, id: number])[]): Buffer {
  const value = Buffer.alloc(4 + entries.length * 8);
  value.writeUInt32LE(2, 0);
  for (const [index, [tag, permissions, id]] of entries.entries()) {
    value.writeUInt16LE(tag, 4 + index * 8);
    value.writeUInt16LE(permissions, 6 + index * 8);
    value.writeUInt32LE(id, 8 + index * 8);
  }
  return value;
}

describe('owners', () => {
  it('moves ids from one map to another', () => {
    const plan = planShift({ from: MAP, to: OTHER });

    expect([plan.uid(100_005), plan.gid(200_005)]).toEqual([900_005, 950_005]);
  });

  it('leaves ids alone that are in no map', () => {
    const plan = planShift({ from: null, to: MAP });

    expect([plan.uid(0), plan.uid(65_535), plan.uid(65_536)]).toEqual([100_000, 165_535, 65_536]);
  });

  it('comes back to where it was', () => {
    assert(
      property(nat(MAP.size - 1), (id) => {
        const there = planShift({ from: null, to: MAP });
        const back = planShift({ from: MAP, to: null });
        expect([back.uid(there.uid(id)), back.gid(there.gid(id))]).toEqual([id, id]);
      }),
    );
  });
});

describe('ACLs', () => {
  it('moves named users and groups, and nothing else', () => {
    const undefinedId = 0xffff_ffff;
    const before = acl(
      [0x01, 6, undefinedId],
      [0x02, 4, 7],
      [0x04, 4, undefinedId],
      [0x08, 4, 8],
      [0x10, 4, undefinedId],
      [0x20, 4, undefinedId],
    );

    const after = planShift({ from: null, to: MAP }).acl(before);

    expect(after).toEqual(
      acl(
        [0x01, 6, undefinedId],
        [0x02, 4, 100_007],
        [0x04, 4, undefinedId],
        [0x08, 4, 200_008],
        [0x10, 4, undefinedId],
        [0x20, 4, undefinedId],
      ),
    );
  });
});

describe('file capabilities', () => {
  it('names the root that a shifted one counts for, and is as before when it comes back', () => {
    const shifted = planShift({ from: null, to: MAP }).capability(CAP_2);
    const back = planShift({ from: MAP, to: null }).capability(shifted);

    expect(shifted.length).toBe(24);
    expect(shifted.readUInt32LE(0)).toBe(0x0300_0001);
    expect(shifted.readUInt32LE(20)).toBe(100_000);
    expect(back).toEqual(CAP_2);
  });

  it('keeps what it does not understand', () => {
    expect(planShift({ from: null, to: MAP }).capability(Buffer.from('abc'))).toEqual(Buffer.from('abc'));
  });
});

describe('keys of maps', () => {
  it('are read back', () => {
    expect(parseIdMapKey(idMapKey(MAP))).toEqual(MAP);
    expect(parseIdMapKey(idMapKey(null))).toBeNull();
  });

  it('tell maps apart', () => {
    expect(sameIdMap(MAP, { ...MAP })).toBe(true);
    expect(sameIdMap(MAP, OTHER)).toBe(false);
    expect(sameIdMap(MAP, null)).toBe(false);
  });
});
