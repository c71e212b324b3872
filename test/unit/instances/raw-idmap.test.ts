import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { idMapFor, idMapFromJson, idMapJson } from '#src/engine/instances/idmap.ts';
import { checkAllowed, parseRawIdMap, withRawIdMap } from '#src/engine/instances/raw-idmap.ts';
import { hostIds, idMapKey, mapLines, parseIdMapKey, readIdMapKey, toContainer, toHost } from '#src/host/id-map.ts';
import { planShift } from '#src/host/shift-plan.ts';
import { FakeHost } from '../../fakes/fake-host.ts';

const range = { uidBase: 100_000, gidBase: 100_000, size: 1_000_000 };
const map = (raw: string) => withRawIdMap(range, parseRawIdMap(raw));

describe('raw.idmap', () => {
  it.each([
    ['uid 1000 1000', '0 100000 1000\n1000 1000 1\n1001 101001 998999\n', '0 100000 1000000\n'],
    ['gid 50-59 0-9', '0 100000 1000000\n', '0 50 10\n10 100010 999990\n'],
    ['both 0 0', '0 0 1\n1 100001 999999\n', '0 0 1\n1 100001 999999\n'],
    ['uid 7 999999', '0 100000 999999\n999999 7 1\n', '0 100000 1000000\n'],
    ['uid 10-19 999995-1000004', '0 100000 999995\n999995 10 10\n', '0 100000 1000000\n'],
    ['uid 5 2000000', '0 100000 1000000\n2000000 5 1\n', '0 100000 1000000\n'],
    [
      'uid 1000 1000\nuid 1001 1001',
      '0 100000 1000\n1000 1000 1\n1001 1001 1\n1002 101002 998998\n',
      '0 100000 1000000\n',
    ],
    ['uid 1-9 1-9\nuid 50 5', '0 100000 1\n1 1 4\n5 50 1\n6 6 4\n10 100010 999990\n', '0 100000 1000000\n'],
  ])('%j splits the map', (raw, users, groups) => {
    expect([mapLines(map(raw), 'uid'), mapLines(map(raw), 'gid')]).toEqual([users, groups]);
  });

  it.each([
    ['uid 1000', 'Invalid ID map line "uid 1000"'],
    ['uid 1000  1000', 'Invalid ID map line "uid 1000  1000"'],
    ['uid 1 1 1', 'Invalid ID map line "uid 1 1 1"'],
    ['user 1 1', 'Invalid ID map type "user 1 1"'],
    ['constructor 1 1', 'Invalid ID map type "constructor 1 1"'],
    ['uid 1-2 1-3', 'The ID map ranges are of different sizes "uid 1-2 1-3"'],
    ['uid 2-1 2-1', 'Invalid ID Map range "2-1"'],
    ['uid -1 1', 'Invalid ID Map range "-1"'],
    ['uid 1- 1-', 'Invalid ID Map range "1-"'],
    ['uid 1-2-3 1-3', 'Invalid ID Map range "1-2-3"'],
    ['uid 0x10 1', 'Invalid ID Map range "0x10"'],
    ['uid 4294967295 1', 'Invalid ID Map range "4294967295"'],
    ['uid 99999999999 1', 'Invalid ID Map range "99999999999"'],
    ['uid 1000 1\nuid 1000 2', 'Host id is in the range of subids'],
    ['both 1000 1\ngid 1000 2', 'Host id is in the range of subids'],
    ['uid 1 1\r', 'Invalid ID Map range "1\r"'],
  ])('%j is refused', (raw, error) => {
    expect(() => parseRawIdMap(raw)).toThrow(error);
  });

  it('gives no host id twice', () => {
    expect(() => map('uid 100001 1000')).toThrow('Host id is in the range of subids');
    expect(() => map('both 1-100000 1-100000')).toThrow('Host id is in the range of subids');
  });

  it('is written and read back in every form', () => {
    const whole = map('both 1000 1000\nuid 5 7');

    expect(idMapFromJson(idMapJson(whole))).toEqual(whole);
    expect(readIdMapKey(idMapKey(whole))).toEqual(whole);
    for (const odd of ['', 'a', '1-2', '1-2-3.', '1-2-3.x1-2-3', '1-2-3.u1-2-3'])
      expect(() => readIdMapKey(odd)).toThrow();
    expect(parseIdMapKey(idMapKey(whole))).toEqual(whole);
    expect(idMapKey(whole)).not.toBe(idMapKey(range));
  });

  it("reads LXD's entries that are of users and groups in one", () => {
    const both = { Isuid: true, Isgid: true, Hostid: 5, Nsid: 0, Maprange: 10 };

    expect(idMapFromJson(JSON.stringify([both]))).toEqual({ uidBase: 5, gidBase: 5, size: 10 });
  });

  it('maps every id of the container to one of the host and back', () => {
    const line = fc.tuple(fc.nat(90_000), fc.nat(1_200_000), fc.integer({ min: 1, max: 200 }));
    fc.assert(
      fc.property(fc.array(line, { maxLength: 6 }), fc.nat(1_300_000), (lines, id) => {
        let whole = range as ReturnType<typeof map>;
        for (const [host, inside, size] of lines) {
          const raw = parseRawIdMap(`uid ${host}-${host + size - 1} ${inside}-${inside + size - 1}`);
          try {
            whole = withRawIdMap(whole, raw);
          } catch {
            continue; // the host id was given already
          }
          expect(toHost(whole, 'uid', inside)).toBe(host);
        }
        const host = toHost(whole, 'uid', id);
        if (host !== undefined) expect(toContainer(whole, 'uid', host)).toBe(id);
        expect(hostOf(mapLines(whole, 'uid'), id)).toBe(host);
      }),
    );
  });

  it('shifts owners there and back', () => {
    const to = map('both 1000 1000\nuid 5 2000000');
    const there = planShift({ from: null, to });
    const back = planShift({ from: to, to: range });

    expect([0, 999, 1000, 1001, 2_000_000].map((id) => there.uid(id))).toEqual([100_000, 100_999, 1000, 101_001, 5]);
    expect([0, 1000, 1001].map((id) => back.gid(there.gid(id)))).toEqual([100_000, 101_000, 101_001]);
  });

  it('leaves ids without a meaning to nobody', () => {
    const whole = map('uid 1000 2000000');

    expect(hostIds({ uid: 2_000_000, gid: 5 }, whole)).toEqual({ uid: 1000, gid: 100_005 });
    expect(() => hostIds({ uid: 1_500_000, gid: 5 }, whole)).toThrow('has no meaning in the instance');
    expect(() => hostIds({ uid: 5, gid: 2_000_000 }, whole)).toThrow('has no meaning in the instance');
  });

  it('keeps its host ids from isolated instances that come later', () => {
    const config = { 'security.idmap.isolated': 'true' };
    const other = { ...config, 'volatile.idmap.base': '231072', 'raw.idmap': 'both 165536-165540 1000-1004' };

    const ids = idMapFor({ ...range, size: 10_000_000 }, { config, others: () => [other] });

    expect(ids?.map.uidBase).toBe(231_072 + 65_536);
  });
});

describe('what root may give away', () => {
  const withFiles = (subuid: string, subgid = subuid) => {
    const host = new FakeHost();
    host.files.set('/etc/subuid', subuid).set('/etc/subgid', subgid);
    return host;
  };
  const check = (host: FakeHost, raw: string) => checkAllowed(host, parseRawIdMap(raw));

  it('is what /etc/subuid and /etc/subgid list for it', async () => {
    const host = withFiles('root:100000:65536\nroot:1000:2\nadmin:5:1\n', 'root:100000:65536\n0:1000:1\n');

    await expect(check(host, 'both 1000 1000\nuid 1001 1')).resolves.toBeUndefined();
    await expect(check(host, 'gid 1001 1')).rejects.toThrow('newgidmap: gid range [1-2) -> [1001-1002) not allowed');
    await expect(check(host, 'uid 1001-1002 1-2')).rejects.toThrow('(a line "root:1001:2" in /etc/subuid allows it)');
    await expect(check(host, 'uid 5 5')).rejects.toThrow('not allowed');
  });

  it('is all where the files say nothing, or where the map has the root of the host in it', async () => {
    await expect(check(new FakeHost(), 'uid 5 5')).resolves.toBeUndefined();
    await expect(check(withFiles('root:100000:65536'), 'both 0 0\nuid 5 5')).resolves.toBeUndefined();
  });
});

/** As the kernel reads the lines. */
function hostOf(lines: string, id: number): number | undefined {
  for (const line of lines.trim().split('\n')) {
    const [inside = 0, host = 0, size = 0] = line.split(' ').map(Number);
    if (id >= inside && id < inside + size) return host + id - inside;
  }
  return undefined;
}
