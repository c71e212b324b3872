import { describe, expect, it } from 'vitest';
import { refuseOnBlock } from '#src/engine/instances/block-rules.ts';
import { filled, isOfInstance, rootDisk, validateRoot } from '#src/engine/instances/disks.ts';

const root = (more: Record<string, string> = {}) => ({ type: 'disk', path: '/', pool: 'p', ...more });
const block = { 'lighter.block': '/dev/vg/volume' };

describe('a root on a device of the host', () => {
  it('is named by an absolute path, and has no size but its own', () => {
    expect(() => validateRoot(root(block))).not.toThrow();
    for (const path of ['dev/sda', '/dev/../etc/shadow', '/dev/sda/', '/dev//sda', '/dev/a\nb'])
      expect(() => validateRoot(root({ 'lighter.block': path })), path).toThrow('not an absolute path');
    expect(() => validateRoot(root({ ...block, size: '1GiB' }))).toThrow('a size of its own');
    expect(() => validateRoot(root({ 'lighter.block.fill': 'true' }))).toThrow('needs "lighter.block"');
    expect(() => validateRoot(root({ ...block, 'lighter.block.fill': 'maybe' }))).toThrow('maybe');
  });

  it('is known with what is to be done to it, which is forgotten when it is done', () => {
    const devices = { root: root({ ...block, 'lighter.block.fill': 'true' }) };

    expect(rootDisk(devices)).toEqual({ device: 'root', pool: 'p', block: '/dev/vg/volume', fill: true });
    expect(rootDisk(filled(devices))).toEqual({ device: 'root', pool: 'p', block: '/dev/vg/volume' });
    expect(isOfInstance(devices.root)).toBe(true);
    expect(isOfInstance(root())).toBe(false);
  });

  it('is not copied, and says why', () => {
    expect(() => refuseOnBlock({ name: 'c1', devices: { root: root(block) } }, 'copied')).toThrow(
      'The root of instance "c1" is a device of the host (/dev/vg/volume): it cannot be copied here',
    );
    expect(() => refuseOnBlock({ name: 'c1', devices: { root: root() } }, 'copied')).not.toThrow();
  });
});
