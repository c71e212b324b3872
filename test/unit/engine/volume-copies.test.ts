// What a migration says of custom volumes, and what pools say of rsync.
import { describe, expect, it } from 'vitest';
import { ZERO_TIME } from '#src/engine/db/records.ts';
import { idMapFromJson, idMapJson } from '#src/engine/instances/idmap.ts';
import { compareSnapshots } from '#src/engine/snapshots/compare.ts';
import { checkRsyncSettings, rsyncSettings } from '#src/engine/storage/rsync-settings.ts';
import { acceptableConfig } from '#src/engine/volumes/volume-config.ts';
import {
  indexedSnapshots,
  messageOfVolumeSnapshot,
  volumeSnapshotOfMessage,
} from '#src/engine/volumes/volume-messages.ts';

const SNAPSHOT = {
  id: 1,
  volumeId: 1,
  name: 's0',
  hostName: 's0',
  description: 'd',
  config: { 'user.a': 'b' },
  createdAt: '2026-01-02T03:04:05.000Z',
  expiresAt: ZERO_TIME,
  pending: '',
} as const;

describe('the messages of volumes', () => {
  it('tell all of a snapshot but its description', () => {
    const { name, config, createdAt, expiresAt } = SNAPSHOT;

    expect(volumeSnapshotOfMessage(messageOfVolumeSnapshot(SNAPSHOT))).toEqual({
      name,
      config,
      createdAt,
      expiresAt,
      description: '',
    });
  });

  it.each(['../x', 'a/b', '', '..'])('do not bring a snapshot of the name %j', (name) => {
    expect(() => volumeSnapshotOfMessage({ ...messageOfVolumeSnapshot(SNAPSHOT), name })).toThrow(
      'Invalid snapshot name',
    );
  });

  it('take what the index tells besides, and nothing that is no index', () => {
    const document = { config: { volume_snapshots: [{ name: 's0', description: 'd', expires_at: null }] } };

    expect(indexedSnapshots(Buffer.from(JSON.stringify(document))).get('s0')).toEqual({ description: 'd' });
    const ofLxd = { config: { Volume: null, VolumeSnapshots: [{ name: 's0', description: 'd', expires_at: null }] } };
    expect(indexedSnapshots(Buffer.from(JSON.stringify(ofLxd))).get('s0')).toEqual({ description: 'd' });
    expect(indexedSnapshots(Buffer.from('{}')).size).toBe(0);
    for (const bad of ['', '[1', '{"config":{"volume_snapshots":[{"name":7}]}}']) {
      expect(() => indexedSnapshots(Buffer.from(bad))).toThrow('The index of the migration is not');
    }
  });
});

it('takes a peer that does not know when it made its snapshots at their names', () => {
  const ours = [{ name: 's0', createdAt: SNAPSHOT.createdAt }];

  expect(compareSnapshots([{ name: 's0', createdAt: ZERO_TIME }], ours)).toEqual({ missing: [], surplus: [] });
  expect(compareSnapshots([{ name: 's0', createdAt: '2026-01-02T03:04:06Z' }], ours).missing).toHaveLength(1);
});

it('leaves out what another driver knows', () => {
  const config = { 'zfs.blocksize': '4k', size: '1GiB', 'user.x': 'y', 'snapshots.expiry': 'never ever', 'a.b': 'c' };

  expect(acceptableConfig(config, {})).toEqual({ size: '1GiB', 'user.x': 'y' });
});

describe('id maps in the configuration', () => {
  it('are read as they are written', () => {
    const map = { uidBase: 1_000_000, gidBase: 2_000_000, size: 65_536 };

    expect(idMapFromJson(idMapJson(map))).toEqual(map);
    for (const none of [undefined, '', '[]', 'null']) expect(idMapFromJson(none)).toBeNull();
    for (const bad of ['{', '7', '[{"Isuid":true,"Hostid":"x"}]']) {
      expect(() => idMapFromJson(bad)).toThrow('Invalid id map');
    }
  });
});

describe('what pools say of rsync', () => {
  it('is a limit and whether to compress', () => {
    expect(rsyncSettings({})).toEqual({ compression: true });
    expect(rsyncSettings({ 'rsync.bwlimit': '0', 'rsync.compression': 'false' })).toEqual({ compression: false });
    expect(rsyncSettings({ 'rsync.bwlimit': '10MB' })).toEqual({ bwlimit: '10MB', compression: true });
  });

  it.each([{ 'rsync.bwlimit': '10 --daemon' }, { 'rsync.bwlimit': 'x' }, { 'rsync.compression': 'maybe' }])(
    'is refused: %j',
    (config) => {
      expect(() => checkRsyncSettings(config)).toThrow('Invalid value for option "rsync.');
    },
  );
});
