// What lies on a volume that is to be booted from, and what becomes of it.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { LxdDriver } from '#drivers/virt/lxd/driver.ts';
import { DEFAULT_OPTIONS } from '#drivers/virt/lxd/options.ts';
import type { SpawnHooks, SpawnImage, SpawnSpec } from '#drivers/virt/driver.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/silent-log.ts';
import { writeTar } from '#src/lib/tar.ts';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FakeLxd } from '#test/fakes/fake-lxd.ts';

const EXTENSIONS = ['instances', 'lighter_root_block'];
const ARCHIVE = gzipSync(writeTar([{ name: 'sbin/init', content: '#!/bin/sh\n' }]));
const signal = (): AbortSignal => AbortSignal.timeout(9000);

let folder: string;
let server: FakeLxd;
let driver: LxdDriver;

async function startOn(extensions: readonly string[]): Promise<void> {
  server = await FakeLxd.start({ extensions: [...extensions], serverVersion: '5.0.2' });
  const options = { ...DEFAULT_OPTIONS, endpoint: server.endpoint, stateFolder: folder };
  driver = new LxdDriver({ log: silentLog, host: new LinuxHost(), options });
  await driver.start(signal());
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'root-volume-'));
  await startOn(EXTENSIONS);
});

afterEach(async () => {
  await driver.stop();
  await server[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

/** As long as a volume, with something at its begin. */
async function volumeOf(begin: Buffer): Promise<string> {
  const path = join(folder, randomUUID());
  await writeFile(path, Buffer.concat([begin, Buffer.alloc(2 ** 21)]));
  return path;
}

function disk(at: number, bytes: readonly number[]): Buffer {
  const head = Buffer.alloc(4096);
  Buffer.from(bytes).copy(head, at);
  return head;
}

const imageOf = (fields: Partial<SpawnImage> = {}): SpawnImage => ({
  id: 'image',
  cacheKey: randomUUID(),
  name: 'image',
  diskFormat: 'raw',
  containerFormat: 'bare',
  sizeBytes: ARCHIVE.length,
  properties: {},
  open: async () => Readable.from([ARCHIVE]),
  ...fields,
});

const specOf = (): SpawnSpec => ({
  uuid: randomUUID(),
  name: 'instance-1',
  displayName: 'web',
  hostname: 'web',
  projectId: 'project',
  userId: 'user',
  flavor: { vcpus: 1, memoryMib: 128, rootGib: 20, cpuIds: null, ephemeralsGib: [], swapMib: 0, extraSpecs: {} },
  image: null,
});

const hooksOf = (hostPath: string, image: SpawnImage | null): SpawnHooks => ({
  network: async () => [],
  volumes: async () => [{ volumeId: randomUUID(), hostPath, guestPath: '/dev/sda', isRoot: true }],
  rootImage: async () => image,
});

const rootOf = () => server.instances.get('instance-1')?.devices['root'];

describe('a spawn from a volume', () => {
  it.each([
    ['ext4 without partitions', disk(0x438, [0x53, 0xef])],
    ['a partition table', disk(510, [0x55, 0xaa])],
  ])('uses %s as it is', async (_what, begin) => {
    const path = await volumeOf(begin);

    await driver.spawn(specOf(), hooksOf(path, null), signal());

    expect(rootOf()).toEqual({ type: 'disk', path: '/', pool: 'default', 'lighter.block': path });
    expect(server.images.size).toBe(0);
  });

  it('fills a volume that holds an image, which is fetched from there once', async () => {
    const path = await volumeOf(ARCHIVE);
    const image = imageOf();

    await driver.spawn(specOf(), hooksOf(path, image), signal());

    expect(rootOf()).toMatchObject({ 'lighter.block': path, 'lighter.block.fill': 'true' });
    expect(rootOf()).not.toHaveProperty('size');
    const again = { ...image, open: () => Promise.reject(new Error('read twice')) };
    await driver.destroy((await driver.listInstances(signal()))[0]?.uuid ?? '', signal());
    await driver.spawn(specOf(), hooksOf(path, again), signal());
    expect(server.images.size).toBe(1);
  });

  it.each([
    ['nothing', Buffer.alloc(0), 'is empty'],
    ['a qcow2 file', Buffer.from('QFI\xfb', 'latin1'), 'qcow2'],
    ['a disk of another hypervisor', Buffer.from('KDMV', 'latin1'), 'VMDK'],
    ['noise', Buffer.alloc(4096, 0x61), 'unknown format'],
    ['an archive that nobody knows the end of', ARCHIVE, 'where it ends'],
  ])('refuses %s, and leaves it alone', async (_what, begin, reason) => {
    const path = await volumeOf(begin);

    await expect(driver.spawn(specOf(), hooksOf(path, null), signal())).rejects.toMatchObject({
      kind: 'invalid',
      message: expect.stringContaining(reason),
    });

    expect(server.instances.size).toBe(0);
  });

  it('is refused by other engines, and by what has no volume', async () => {
    await expect(driver.spawn(specOf(), { network: async () => [] }, signal())).rejects.toThrow('neither an image');
    expect(driver.canBootFromVolume).toBe(true);
    await driver.stop();
    await server[Symbol.asyncDispose]();
    await startOn(['instances']);

    expect(driver.canBootFromVolume).toBe(false);
    const path = await volumeOf(disk(510, [0x55, 0xaa]));
    await expect(driver.spawn(specOf(), hooksOf(path, null), signal())).rejects.toMatchObject({ kind: 'unsupported' });
  });
});

describe('an instance on a volume', () => {
  it('keeps its root there with another flavor, and has it where the volume is connected now', async () => {
    const path = await volumeOf(disk(510, [0x55, 0xaa]));
    const spec = specOf();
    await driver.spawn(spec, hooksOf(path, null), signal());
    await driver.powerOff(spec.uuid, { graceSeconds: 0 }, signal());

    await driver.resize(spec.uuid, { ...spec.flavor, rootGib: 40 }, signal());
    expect(rootOf()).toMatchObject({ 'lighter.block': path });
    const volumes = [
      { volumeId: 'v1', hostPath: '/boot2/v1', guestPath: '/dev/sda', isRoot: true } as const,
      { volumeId: 'v2', hostPath: '/boot2/v2', guestPath: '/dev/sdb' },
    ];
    await driver.setVolumes(spec.uuid, volumes, signal());

    expect(rootOf()).toMatchObject({ 'lighter.block': '/boot2/v1', pool: 'default' });
    const names = Object.keys(server.instances.get('instance-1')?.devices ?? {});
    expect(names.filter((name) => name.startsWith('volume-'))).toEqual(['volume-v2']);
  });
});
