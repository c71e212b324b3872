import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseCompression } from '#src/engine/images/compression.ts';
import { byteSize, stageProgress } from '#src/engine/images/progress.ts';

describe('a compression algorithm', () => {
  it.each([
    ['none', { kind: 'none' }],
    ['gzip', { kind: 'filter', argv: ['gzip', '-c', '-n'] }],
    ['gzip --rsyncable', { kind: 'filter', argv: ['gzip', '-c', '-n', '--rsyncable'] }],
    ['zstd -19 --long=27', { kind: 'filter', argv: ['zstd', '-c', '-q', '-T0', '-19', '--long=27'] }],
    ['lzma', { kind: 'filter', argv: ['xz', '-c', '--format=lzma'] }],
    ['squashfs', { kind: 'squashfs', options: ['-comp', 'xz'] }],
    ['squashfs -comp zstd', { kind: 'squashfs', options: ['-comp', 'zstd'] }],
  ])('%s is understood', (text, expected) => {
    expect(parseCompression(text)).toEqual(expected);
  });

  it.each([
    '',
    'sh -c id',
    '/bin/gzip',
    'none -1',
    'gzip -S.x',
    'xz --files=/etc/shadow',
    'zstd -o/etc/x',
    '__proto__',
  ])('%j is refused', (text) => {
    expect(() => parseCompression(text)).toThrow('Invalid compression algorithm');
  });

  it('never lets a path through', () => {
    fc.assert(
      fc.property(fc.constantFrom('gzip', 'xz', 'squashfs', 'zstd'), fc.string(), (name, option) => {
        fc.pre(option.includes('/'));
        expect(() => parseCompression(`${name} ${option}`)).toThrow('Invalid compression algorithm');
      }),
    );
  });
});

it('tells progress as LXD does', () => {
  expect([0, 999, 1000, 235_810_000, 2e12].map(byteSize)).toEqual(['0B', '999B', '1.00kB', '235.81MB', '2.00TB']);
  expect(stageProgress('pack', 'Image pack', { percent: 8, bytes: 100, bytesPerSecond: 2000 })).toEqual({
    pack_progress: 'Image pack: 8% (2.00kB/s)',
    progress: { stage: 'pack', percent: '8', processed: '100', speed: '2000' },
  });
  expect(stageProgress('pack', 'Image pack', { percent: undefined, bytes: 1500, bytesPerSecond: 1 })).toMatchObject({
    pack_progress: 'Image pack: 1.50kB (1B/s)',
  });
});
