import { describe, expect, it } from 'vitest';
import { declaredKey, requireDeclared, requireTaken } from '#drivers/virt/lxd/declared-format.ts';

it.each([
  ['qcow2', 'qcow2'],
  ['raw', 'raw'],
  ['rootfs', 'raw'],
  ['rootfs', 'root-tar'],
  ['rootfs', 'squashfs'],
  ['unified', 'raw'],
  ['unified', ''],
] as const)('%s may be declared as %j', (kind, diskFormat) => {
  expect(() => requireDeclared(kind, diskFormat)).not.toThrow();
});

describe('refused', () => {
  it.each([
    ['qcow2', 'raw', 'declared as raw and is a qcow2 disk'],
    ['qcow2', '', 'is a qcow2 disk'],
    ['raw', 'qcow2', 'declared as qcow2 and is a raw disk'],
    ['raw', 'squashfs', 'is a raw disk'],
    ['rootfs', 'qcow2', 'declared as qcow2 and is an archive'],
    ['unified', 'qcow2', 'is an archive'],
  ] as const)('%s declared as %j', (kind, diskFormat, reason) => {
    expect(() => requireDeclared(kind, diskFormat)).toThrow(reason);
  });
});

it.each(['ami', 'aki', 'ari', 'iso', 'vmdk', 'vhd', 'vdi'])('%s is no format of containers', (diskFormat) => {
  expect(() => requireTaken(diskFormat)).toThrow(`disk format ${diskFormat} are not taken: raw, qcow2`);
});

it('what was cached under one declaration does not pass under another', () => {
  const keys = ['raw', 'qcow2', 'squashfs'].map((diskFormat) => declaredKey('sha512:1', diskFormat));

  expect(new Set(keys).size).toBe(3);
  expect(keys[0]).toBe('sha512:1');
});
