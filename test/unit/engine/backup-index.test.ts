// What a backup says of itself is read with care.
import { describe, expect, it } from 'vitest';
import { parseIndex } from '#src/engine/backups/read-index.ts';

describe('the index of a backup', () => {
  it('is read as LXD writes it', async () => {
    const text = `name: c1
backend: dir
pool: default
snapshots:
- s0
optimized: false
type: container
config:
  container:
    architecture: x86_64
    config:
      user.x: "y"
    devices: {}
    ephemeral: false
    profiles:
    - default
    description: ""
    created_at: 2026-11-25T22:49:23.305304904Z
`;

    expect(await parseIndex(text)).toEqual({
      name: 'c1',
      backend: 'dir',
      pool: 'default',
      snapshots: ['s0'],
      createdAt: '2026-11-25T22:49:23.305304904Z',
      lastUsedAt: '0001-01-01T00:00:00Z',
      snapshotRows: [],
      volume: { config: {}, description: '' },
      volumeSnapshots: new Map(),
      optimized: false,
      optimizedHeader: false,
      type: 'container',
      instance: {
        name: 'c1',
        architecture: 'x86_64',
        config: { 'user.x': 'y' },
        devices: {},
        ephemeral: false,
        profiles: ['default'],
        description: '',
      },
    });
  });

  it('says what users wrote on the volume and on its snapshots', async () => {
    const volume_snapshots = [
      { name: 's0', config: { 'user.a': '0' }, description: 'first' },
      { name: 's1', config: null },
    ];
    const text = JSON.stringify({ name: 'c1', config: { volume: { config: { 'user.a': '1' } }, volume_snapshots } });

    const { volume, volumeSnapshots } = await parseIndex(text);

    expect(volume).toEqual({ config: { 'user.a': '1' }, description: '' });
    expect([...volumeSnapshots]).toEqual([
      ['s0', { config: { 'user.a': '0' }, description: 'first' }],
      ['s1', { config: {}, description: '' }],
    ]);
  });

  it.each([
    ['a: [', 'not YAML'],
    ['[]', 'must be object'],
    ['pool: x', "must have required property 'name'"],
    ['{name: c1, config: {container: {config: {a: {b: c}}}}}', '/config/container/config/a must be string'],
    ['{name: c1, snapshots: [1]}', '/snapshots/0 must be string'],
    ['{name: &a c1, pool: *a}', 'not YAML'],
  ])('refuses %s', async (text, reason) => {
    await expect(parseIndex(text)).rejects.toThrow(reason);
  });
});
