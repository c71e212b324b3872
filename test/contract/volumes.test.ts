// The volume drivers on a machine in memory; test/integration/host/volumes.test.ts has the real one.
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { VolumeConnection, VolumeDriver, VolumeModule } from '#drivers/volume/driver.ts';
import { local } from '#drivers/volume/local/local.ts';
import { nfs } from '#drivers/volume/nfs/nfs.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';
import { FakeLoops } from '#test/fakes/fake-loops.ts';
import { silentLog } from '#src/lib/silent-log.ts';
import { volumeContract } from './volume-contract.ts';

const EXPORT = 'server:/share';
const TARGET = `/mnt/${createHash('md5').update(EXPORT).digest('hex')}`;
const signal = (): AbortSignal => AbortSignal.timeout(5000);
const MOUNTINFO = '/proc/self/mountinfo';

interface World {
  readonly host: FakeHost;
  readonly loops: FakeLoops;
  readonly driver: VolumeDriver;
}

function world(module: VolumeModule, mountOptions: string | null = null): World {
  const host = new FakeHost();
  host.files.set(MOUNTINFO, '');
  host.on(/^mount -t nfs/, ({ argv }) => {
    const target = argv.at(-1) ?? '';
    host.files.set(MOUNTINFO, `36 25 0:40 / ${target} rw - nfs4 ${EXPORT} rw`);
    return '';
  });
  host.on(/^umount/, () => {
    host.files.set(MOUNTINFO, '');
    return '';
  });
  host.on(/^test -b/, () => ({ exitCode: 1 }));
  const driver = module.create({ host, log: silentLog, mountFolder: '/mnt', mountOptions });
  return { host, loops: new FakeLoops(host), driver };
}

const ofNfs = (data: Readonly<Record<string, unknown>> = {}): VolumeConnection => ({
  type: 'nfs',
  data: { export: EXPORT, name: 'volume-1', format: 'raw', options: null, ...data },
});

describe.each([
  ['local', local, { type: 'local', data: { device_path: '/var/volume-1' } }, '/var/volume-1'],
  ['nfs', nfs, ofNfs(), `${TARGET}/volume-1`],
] as const)('driver %s', (_name, module, connection, file) => {
  volumeContract(async () => {
    const { host, loops, driver } = world(module);
    host.files.set(file, String(2 ** 20));
    return {
      driver,
      connection,
      devices: async () => [...loops.files.keys()],
      sizeBytes: async (device) => loops.sizes.get(device) ?? 0,
      grow: async (size) => void host.files.set(file, String(size)),
      remove: async () => void host.files.delete(file),
      async [Symbol.asyncDispose]() {},
    };
  });
});

describe('driver nfs', () => {
  it('mounts the export once, with the options of the operator and of Cinder, and unmounts it after the last volume', async () => {
    const { host, driver } = world(nfs, 'vers=4.2');
    host.files.set(`${TARGET}/volume-1`, '1').set(`${TARGET}/volume-2`, '1');
    const [first, second] = [ofNfs({ options: '-o soft,ro' }), ofNfs({ name: 'volume-2' })];
    host.on(/^umount/, () => ({ exitCode: 32, stderr: 'target is busy' }));

    await driver.connect(first, signal());
    await driver.connect(second, signal());
    await driver.disconnect(first, signal());

    const mounts = host.calls.filter((line) => line.startsWith('mount'));
    expect(mounts).toEqual([`mount -t nfs -o vers=4.2,soft,ro -- ${EXPORT} ${TARGET}`]);
    expect(host.calls.at(-1)).toBe(`umount -- ${TARGET}`);
  });

  it('leaves a mount of another type alone', async () => {
    const { host, driver } = world(nfs);
    host.files.set(`${TARGET}/volume-1`, '1');
    host.files.set(MOUNTINFO, `36 25 0:40 /x ${TARGET} rw - ext4 /dev/sda rw`);

    await driver.connect(ofNfs(), signal());
    await driver.disconnect(ofNfs(), signal());

    expect(host.calls.filter((line) => /mount/.test(line))).toEqual([]);
  });

  it('unmounts what it mounted when there is no such file', async () => {
    const { host, driver } = world(nfs);

    await expect(driver.connect(ofNfs(), signal())).rejects.toMatchObject({ kind: 'not_found' });

    expect(host.files.get(MOUNTINFO)).toBe('');
  });

  it.each([
    [{ name: '../../etc/shadow' }, 'invalid'],
    [{ name: '..' }, 'invalid'],
    [{ export: '-o suid' }, 'invalid'],
    [{ options: '-o a b' }, 'invalid'],
    [{ format: 'qcow2' }, 'unsupported'],
  ])('refuses %o', async (data, kind) => {
    const { host, driver } = world(nfs);

    await expect(driver.connect(ofNfs(data), signal())).rejects.toMatchObject({ kind });

    expect(host.calls).toEqual([]);
  });

  it('says so when the device is still in use, and goes on from there later', async () => {
    const { host, loops, driver } = world(nfs);
    host.files.set(`${TARGET}/volume-1`, '1');
    const device = await driver.connect(ofNfs(), signal());
    loops.busy.add(device);

    await expect(driver.disconnect(ofNfs(), AbortSignal.timeout(300))).rejects.toThrow();
    loops.busy.clear();
    await driver.disconnect(ofNfs(), signal());

    expect(loops.files.size).toBe(0);
  });
});
