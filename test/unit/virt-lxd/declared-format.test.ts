import { describe, expect, it } from 'vitest';
import { requireDeclared } from '#drivers/virt/lxd/declared-format.ts';

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
    ['raw', 'ami', 'disk format ami are not taken: raw, qcow2'],
    ['rootfs', 'vmdk', 'disk format vmdk are not taken'],
    ['raw', 'iso', 'disk format iso are not taken'],
  ] as const)('%s declared as %j', (kind, diskFormat, reason) => {
    expect(() => requireDeclared(kind, diskFormat)).toThrow(reason);
  });
});
