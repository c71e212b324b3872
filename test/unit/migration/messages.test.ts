// The messages of a migration, byte for byte and there and back.
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  CRIU,
  decodeControl,
  decodeHeader,
  encodeControl,
  encodeHeader,
  FS,
  type MigrationHeader,
} from '#src/engine/migration/messages.ts';

const id = fc.integer({ min: 0, max: 2 ** 31 - 1 });
const pair = fc.record({ key: fc.string(), value: fc.string() });
const snapshot = fc.record(
  {
    name: fc.string(),
    config: fc.array(pair),
    profiles: fc.array(fc.string()),
    ephemeral: fc.boolean(),
    devices: fc.array(fc.record({ name: fc.string(), config: fc.array(pair) })),
    architecture: id,
    stateful: fc.boolean(),
    createdAt: fc.integer({ min: -62_135_596_800, max: 2 ** 40 }),
    lastUsedAt: fc.integer({ min: -62_135_596_800, max: 2 ** 40 }),
    expiresAt: fc.integer({ min: -62_135_596_800, max: 2 ** 40 }),
  },
  { requiredKeys: ['name', 'config', 'profiles', 'ephemeral', 'devices', 'architecture', 'stateful'] },
);
const header = fc.record(
  {
    fs: fc.constantFrom(...Object.values(FS)),
    criu: fc.constantFrom(...Object.values(CRIU)),
    idmap: fc.array(fc.record({ isUid: fc.boolean(), isGid: fc.boolean(), hostId: id, nsId: id, size: id })),
    snapshotNames: fc.array(fc.string()),
    snapshots: fc.array(snapshot),
    streamPoints: fc.array(fc.record({ snapshot: fc.string(), guid: fc.string(), owners: fc.string() })),
    streamBase: fc.string(),
    zfsFeatures: fc.record({ compress: fc.boolean(), migrationHeader: fc.boolean() }),
    btrfsFeatures: fc.record({ migrationHeader: fc.boolean() }),
    refresh: fc.boolean(),
    rsyncFeatures: fc.record({ xattrs: fc.boolean(), delete: fc.boolean() }),
    volumeSize: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
    indexHeaderVersion: id,
  },
  { requiredKeys: ['fs', 'idmap', 'snapshotNames', 'snapshots', 'streamPoints'] },
);

describe('messages of a migration', () => {
  it('come back as they were sent', () => {
    fc.assert(
      fc.property(header, (message) => {
        expect(decodeHeader(encodeHeader(message as MigrationHeader))).toEqual(message);
      }),
    );
  });

  it('have the numbers of LXD’s schema', () => {
    const bytes = encodeHeader({
      fs: FS.zfs,
      criu: CRIU.none,
      idmap: [{ isUid: true, isGid: false, hostId: 1_000_000, nsId: 0, size: 300 }],
      snapshotNames: ['s'],
      snapshots: [],
      rsyncFeatures: { xattrs: true, bidirectional: true },
      refresh: false,
      indexHeaderVersion: 1,
    });

    expect(bytes.toString('hex')).toBe(
      [
        '0802',
        '1002',
        '1a0d',
        '0801',
        '1000',
        '18c0843d',
        '2000',
        '28ac02',
        '220173',
        '4204',
        '0801',
        '2001',
        '4800',
        '6801',
      ].join(''),
    );
    expect(encodeControl({ success: false, message: 'no' }).toString('hex')).toBe('080012026e6f');
    expect(decodeControl(Buffer.from('0801', 'hex'))).toEqual({ success: true });
  });

  it('skip what they do not know, and refuse what is none', () => {
    // Field 100 as a varint, as eight bytes, as text, as four bytes.
    const unknown = Buffer.from('a00601a1060000000000000000a2060161a50600000000', 'hex');

    expect(decodeControl(Buffer.concat([unknown, Buffer.from('0801', 'hex')]))).toEqual({ success: true });
    for (const broken of ['08', '12ff01', '120561', '0f', 'ffffffffffffffffffffff']) {
      expect(() => decodeControl(Buffer.from(broken, 'hex')), broken).toThrow('Malformed');
    }
    expect(() => decodeControl(Buffer.from('0a0161', 'hex'))).toThrow('Malformed');
  });
});
