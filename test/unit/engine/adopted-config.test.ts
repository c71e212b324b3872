// What a pool's configuration is after it was taken over without its row.
import { expect, it } from 'vitest';
import { adoptedConfig } from '#src/engine/storage/adopted-config.ts';

const source = '/disks/p.img';
const seen = { source, size: '100000000000', 'volatile.initial_source': source };

it('is what the driver sees and the caller says where nothing was noted', () => {
  expect(adoptedConfig({ noted: undefined, said: { source: '/dev/vdb', 'user.a': 'b' }, seen })).toEqual({
    ...seen,
    'user.a': 'b',
  });
});

it('is word for word what it was', () => {
  const noted = { source, size: '100GB', 'user.foo': 'bah' };

  expect(adoptedConfig({ noted, said: { source }, seen })).toEqual(noted);
  const first = { ...noted, 'volatile.initial_source': '/dev/vdb' };
  expect(adoptedConfig({ noted: first, said: { source }, seen })).toEqual(first);
});

it.each(['50GB', 'much', ''])('has the size that the pool has, not the noted %j', (size) => {
  expect(adoptedConfig({ noted: { source, size }, said: {}, seen })['size']).toBe('100000000000');
});

it('believes what the caller says and the driver sees before what was noted', () => {
  const noted = { source: 'old', 'user.foo': 'old', 'user.a': 'b' };

  const config = adoptedConfig({ noted, said: { source: '/dev/vdb', 'user.foo': 'new' }, seen: { source: 'uuid' } });

  expect(config).toEqual({ source: 'uuid', 'user.foo': 'new', 'user.a': 'b' });
});
