// Ephemeral disks of the LXD driver; real ones are in test/integration/virt-lxd.
import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { SpawnSpec } from '#drivers/virt/driver.ts';
import { LxdDriver } from '#drivers/virt/lxd/driver.ts';
import { DEFAULT_OPTIONS } from '#drivers/virt/lxd/options.ts';
import { writeTar } from '#src/lib/tar.ts';
import { silentLog } from '#src/lib/log.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';
import { FakeLxd, type FakeLxdOptions } from '#test/fakes/fake-lxd.ts';

const ROOT = writeTar([{ name: 'sbin/init', content: '#!/bin/sh\n' }]);
const noNetwork = { network: async () => [] };

let server: FakeLxd;
let driver: LxdDriver;

const soon = (): AbortSignal => AbortSignal.timeout(5000);

async function begin(options: FakeLxdOptions = {}): Promise<void> {
  server = await FakeLxd.start(options);
  const settings = { ...DEFAULT_OPTIONS, endpoint: server.endpoint, stateFolder: '/var/lib/nova' };
  driver = new LxdDriver({ log: silentLog, host: new FakeHost(), options: settings });
  await driver.start(soon());
}

beforeEach(() => begin());
afterEach(async () => {
  await driver.stop();
  await server[Symbol.asyncDispose]();
});

function specOf(ephemeralsGib: readonly number[]): SpawnSpec {
  const uuid = randomUUID();
  const image = {
    id: 'id',
    cacheKey: 'key',
    name: 'image',
    diskFormat: 'raw',
    containerFormat: 'bare',
    sizeBytes: null,
  };
  return {
    uuid,
    name: `instance-${uuid.slice(0, 8)}`,
    displayName: 'web',
    hostname: 'web',
    projectId: 'project',
    userId: 'user',
    flavor: { vcpus: 1, memoryMib: 64, rootGib: 1, cpuIds: null, ephemeralsGib, swapMib: 0, extraSpecs: {} },
    image: { ...image, properties: {}, open: async () => Readable.from([ROOT]) },
  };
}

async function spawn(spec: SpawnSpec): Promise<SpawnSpec> {
  await driver.spawn(spec, noNetwork, soon());
  return spec;
}

const nameOf = ({ uuid }: SpawnSpec, index: number): string => `ephemeral${index}-${uuid}`;

describe('ephemeral disks', () => {
  it('are volumes of the pool with their sizes and the mark of their instance, at their places', async () => {
    const spec = await spawn(specOf([1, 5]));

    expect(server.volumes.get(nameOf(spec, 1))?.config).toEqual({ 'user.nova.uuid': spec.uuid, size: '5GiB' });
    expect(server.instances.get(spec.name)?.devices).toMatchObject({
      ephemeral0: { type: 'disk', pool: 'default', source: nameOf(spec, 0), path: '/mnt' },
      ephemeral1: { type: 'disk', pool: 'default', source: nameOf(spec, 1), path: '/mnt/ephemeral1' },
    });
  });

  it('have no size where the pool cannot hold them to one', async () => {
    await server[Symbol.asyncDispose]();
    await begin({ pools: [{ name: 'default', driver: 'dir', config: {} }] });

    const spec = await spawn(specOf([1]));

    expect(server.volumes.get(nameOf(spec, 0))?.config).toEqual({ 'user.nova.uuid': spec.uuid });
  });

  it.each([
    ['the second of them', /POST .*volumes\/custom$/],
    ['the instance', /^POST \/1.0\/instances$/],
    ['its start', /^PUT .*\/state/],
  ])('go when %s fails', async (_what, request) => {
    const spec = specOf([1, 1]);
    if (request.source.startsWith('POST')) {
      const create = server.volumes.add.bind(server.volumes);
      server.volumes.add = (name, config) => {
        if (name.startsWith('ephemeral1')) server.fail(request, 500, 'no room');
        return create(name, config);
      };
    }
    server.fail(request, 500, 'no room');

    await expect(spawn(spec)).rejects.toThrow('no room');

    expect(server.volumes.names).toEqual([]);
    expect(server.instances.size).toBe(0);
  });

  it('that an earlier try left are made anew; one of somebody else is not touched', async () => {
    const spec = specOf([1]);
    server.volumes.add(nameOf(spec, 0), { 'user.nova.uuid': spec.uuid, old: 'yes' });
    const other = specOf([1]);
    server.volumes.add(nameOf(other, 0), {});

    await spawn(spec);
    await expect(spawn(other)).rejects.toMatchObject({ kind: 'conflict' });

    expect(server.volumes.get(nameOf(spec, 0))?.config).not.toHaveProperty('old');
    expect(server.volumes.get(nameOf(other, 0))).toBeDefined();
  });

  it('go with the instance, also when a deletion was cut short before', async () => {
    const spec = await spawn(specOf([1, 1]));
    server.fail(/^DELETE .*volumes/, 500, 'busy');

    await expect(driver.destroy(spec.uuid, soon())).rejects.toThrow('busy');
    await driver.destroy(spec.uuid, soon());

    expect(server.volumes.names).toEqual([]);
  });

  it('stay when the rescue guest goes', async () => {
    await driver.stop();
    await server[Symbol.asyncDispose]();
    await begin({ extensions: ['instances', 'cloud_init', 'lighter_disk_instance_root'] });
    const spec = await spawn(specOf([1]));
    await driver.powerOff(spec.uuid, { graceSeconds: 0 }, soon());

    await driver.rescue(spec, noNetwork, soon());
    expect(server.instances.get(`rescue-${spec.uuid}`)?.devices).not.toHaveProperty('ephemeral0');
    await driver.unrescue(spec.uuid, soon());

    expect(server.volumes.names).toEqual([nameOf(spec, 0)]);
  });
});

describe('another flavor', () => {
  it('makes, grows and removes them', async () => {
    const spec = await spawn(specOf([1, 1]));
    await driver.powerOff(spec.uuid, { graceSeconds: 0 }, soon());

    await driver.resize(spec.uuid, { ...spec.flavor, ephemeralsGib: [3] }, soon());

    expect(server.volumes.names).toEqual([nameOf(spec, 0)]);
    expect(server.volumes.get(nameOf(spec, 0))?.config['size']).toBe('3GiB');
    expect(server.instances.get(spec.name)?.devices).not.toHaveProperty('ephemeral1');
  });

  it('that the instance cannot have leaves none behind', async () => {
    const spec = await spawn(specOf([]));
    server.fail(/^PUT \/1.0\/instances\/[^/]+$/, 400, 'no');

    await expect(driver.resize(spec.uuid, { ...spec.flavor, ephemeralsGib: [1] }, soon())).rejects.toThrow('no');

    expect(server.volumes.names).toEqual([]);
  });
});

it('what a killed process left is removed at the next start, what is in use or of others stays', async () => {
  const spec = await spawn(specOf([1]));
  const gone = randomUUID();
  server.volumes.add(`ephemeral0-${gone}`, { 'user.nova.uuid': gone });
  server.volumes.add('ephemeral0-mine', {});

  await driver.removeLeftovers(soon());

  expect(server.volumes.names).toEqual(['ephemeral0-mine', nameOf(spec, 0)].toSorted());
});
