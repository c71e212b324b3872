// Names of files that devices have on the host: LXD's, and read back as what they were.
import { describe, expect, it } from 'vitest';
import { DevicePlaces } from '#drivers/devices/common/places.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';

const owner = { project: 'default', name: 'c1', hostName: 'c1', idMap: null, devices: {} };

function made() {
  const host = new FakeHost();
  return { host, places: new DevicePlaces({ host, devicesPath: '/devices' }) };
}

describe('places of devices', () => {
  it.each([
    ['test-dev1', '/tmp/testdev', 'unix.test--dev1.tmp-testdev'],
    ['usb', '/dev/bus/usb/001/002', 'unix.usb.dev-bus-usb-001-002'],
    ['a/b', 'dev/some-thing.d', 'unix.a-b.dev-some--thing.d'],
  ])('%s at %s is %s', (device, part, name) => {
    expect(made().places.path({ owner, device }, 'unix', part)).toBe(`/devices/c1/${name}`);
  });

  it.each(['a/-b', 'a-/b', 'a//b', 'a--b', 'a/--b', 'a///b', '-a', 'a-', '100%2Fb', 'a.b', '%'])(
    '%s is read back',
    async (part) => {
      const { host, places } = made();
      const path = places.path({ owner, device: 'd.1' }, 'unix', part);
      await host.writeFile(path, '');

      expect(await places.of({ owner, device: 'd.1' }, 'unix')).toEqual([{ path, device: 'd.1', part }]);
    },
  );

  it('of one device are not those of another', async () => {
    const { host, places } = made();
    await host.writeFile(places.path({ owner, device: 'a.b' }, 'unix', 'c'), '');
    await host.writeFile(places.path({ owner, device: 'a' }, 'disk'), '');

    expect(await places.of({ owner, device: 'a' }, 'unix')).toEqual([]);
    expect(await places.all(owner, 'unix')).toHaveLength(1);
  });

  it('are unmounted at the end when no instance has one', async () => {
    const { host, places } = made();
    await places.open('c1');
    await places.close();
    expect(await host.mounts.isMountPoint('/devices')).toBe(true);

    await host.removeTree('/devices/c1');
    await places.close();

    expect(await host.mounts.isMountPoint('/devices')).toBe(false);
    await expect(places.close()).resolves.toBeUndefined();
  });
});
