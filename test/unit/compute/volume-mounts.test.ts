// Which volumes a guest has as file systems, and where.
import { describe, expect, it } from 'vitest';
import { mountOf, readMountWish } from '#src/compute/volumes/volume-mounts.ts';
import { createObject } from '#src/nova/objects/object.ts';

const asking = {} as Parameters<typeof readMountWish>[0]; // nobody is asked: everything is loaded

function instanceOf(metadata: Record<string, string>, specs: Record<string, string> = {}) {
  const flavor = createObject('Flavor', { extra_specs: specs });
  return createObject('Instance', { uuid: '11111111-1111-4111-8111-111111111111', metadata, flavor });
}

const deviceOf = (fields: Record<string, unknown> = {}) =>
  createObject('BlockDeviceMapping', { device_name: '/dev/sdb', boot_index: null, tag: null, ...fields });

const read = (metadata: Record<string, string>, specs?: Record<string, string>) =>
  readMountWish(asking, instanceOf(metadata, specs));

describe('lxd:volume_mount', () => {
  it.each([
    ['nobody', {}, {}, null],
    ['the flavor', {}, { 'lxd:volume_mount': '/volumes' }, '/volumes'],
    ['the server, which goes before the flavor', { 'lxd:volume_mount': '/srv' }, { 'lxd:volume_mount': '/v' }, '/srv'],
    [
      'the server, which does not want what the flavor has',
      { 'lxd:volume_mount': 'no' },
      { 'lxd:volume_mount': '/v' },
      null,
    ],
  ])('is said by %s', async (_who, metadata, specs, folder) => {
    expect(await read(metadata, specs)).toEqual({ folder, formats: false });
  });

  it.each(['/', '/dev', '/proc/x', '/sys', 'srv', '/a/../dev', '/srv/', '/a\n/b'])(
    'is refused as %j',
    async (folder) => {
      await expect(read({ 'lxd:volume_mount': folder })).rejects.toThrow('lxd:volume_mount is no path');
    },
  );

  it('lets blank volumes be formatted only when that is said', async () => {
    expect(await read({ 'lxd:volume_format': 'true' })).toMatchObject({ formats: true });
    await expect(read({ 'lxd:volume_format': 'maybe' })).rejects.toThrow('neither true nor false');
  });

  it.each([
    [{}, '/volumes/sdb'],
    [{ tag: 'database' }, '/volumes/database'],
    [{ tag: '..' }, '/volumes/sdb'],
    [{ tag: 'my data' }, '/volumes/sdb'],
  ])('puts a volume %j at %s', (fields, path) => {
    expect(mountOf({ folder: '/volumes', formats: true }, deviceOf(fields))).toEqual({ path, formats: true });
  });

  it('is not about the root, and not about devices', () => {
    expect(mountOf({ folder: '/volumes', formats: true }, deviceOf({ boot_index: 0 }))).toBeUndefined();
    expect(mountOf({ folder: null, formats: true }, deviceOf())).toBeUndefined();
  });
});
