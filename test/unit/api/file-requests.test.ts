import { expect, it } from 'vitest';
import { byteRange } from '#src/api/byte-range.ts';
import { fileHeaders, newEntryOf } from '#src/api/file-headers.ts';

it.each([
  [undefined, 'all'],
  ['bytes=-', 'all'],
  ['bytes=0-1,4-5', 'all'],
  ['bytes=2-4', { start: 2, end: 4 }],
  ['bytes=7-', { start: 7, end: 9 }],
  ['bytes=-3', { start: 7, end: 9 }],
  ['bytes=-30', { start: 0, end: 9 }],
  ['bytes=5-500', { start: 5, end: 9 }],
  ['bytes=10-', 'none'],
  ['bytes=5-4', 'none'],
  ['bytes=-0', 'none'],
])('reads the range %s of ten bytes', (header, expected) => {
  expect(byteRange(header, 10)).toEqual(expected);
});

it('reads headers in either name', () => {
  const lxd = newEntryOf({ 'x-lxd-type': 'directory', 'x-lxd-uid': '5', 'x-lxd-gid': '-1', 'x-lxd-mode': '0750' });
  const incus = newEntryOf({ 'x-incus-write': 'append', 'x-incus-gid': '7' });

  expect(lxd).toEqual({ kind: 'directory', append: false, owner: { uid: 5, mode: 0o750 } });
  expect(incus).toEqual({ kind: 'file', append: true, owner: { gid: 7 } });
});

it.each([
  { 'x-lxd-type': 'fifo' },
  { 'x-lxd-write': 'insert' },
  { 'x-lxd-uid': '4294967295' },
  { 'x-lxd-gid': '1e3' },
  { 'x-lxd-mode': '888' },
])('refuses %o', (headers) => {
  expect(() => newEntryOf(headers)).toThrow(/^Bad file /);
});

it('describes in both names', () => {
  const when = new Date('2024-05-06T07:08:09.123Z');
  const found = { uid: 1, gid: 2, mode: 0o100_644, sizeBytes: 3, accessed: when, modified: when };

  expect(fileHeaders({ kind: 'file', ...found })).toMatchObject({
    'x-lxd-mode': '0644',
    'x-incus-mode': '0644',
    'x-lxd-type': 'file',
    'x-incus-uid': '1',
    'x-lxd-gid': '2',
    'x-lxd-modified': '2024-05-06 07:08:09 +0000 UTC',
  });
});
