// What is special to the LXD driver; what every driver promises is in test/contract/virt.
import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  type LifecycleEvent,
  POWER_STATE,
  type SpawnImage,
  type SpawnNic,
  type SpawnSpec,
} from '#drivers/virt/driver.ts';
import { LxdDriver } from '#drivers/virt/lxd/driver.ts';
import { DEFAULT_OPTIONS, type LxdDriverOptions } from '#drivers/virt/lxd/options.ts';
import { tarNames, writeTar } from '#src/lib/tar.ts';
import { silentLog } from '#src/lib/log.ts';
import { poll } from '#src/lib/wait.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';
import { FakeLxd, type FakeLxdOptions } from '#test/fakes/fake-lxd.ts';

const ROOT = writeTar([{ name: 'sbin/init', content: '#!/bin/sh\n' }]);
const NIC: SpawnNic = {
  vifId: 'port',
  macAddress: 'fa:16:3e:00:00:01',
  mtu: 1450,
  hostInterface: 'tin0123',
  guestInterface: 'eth0',
};

let server: FakeLxd;
let driver: LxdDriver;
let opened: number;

const soon = (): AbortSignal => AbortSignal.timeout(5000);

let swaps: string;

function newDriver(options: Partial<LxdDriverOptions> = {}): LxdDriver {
  const host = new FakeHost();
  host.files.set('/proc/swaps', swaps);
  return new LxdDriver({
    log: silentLog,
    host,
    options: { ...DEFAULT_OPTIONS, endpoint: server.endpoint, stateFolder: '/var/lib/nova', ...options },
  });
}

async function leave(): Promise<void> {
  await driver?.stop();
  await server?.[Symbol.asyncDispose]();
}

async function begin(served: FakeLxdOptions = {}, options: Partial<LxdDriverOptions> = {}): Promise<void> {
  await leave();
  server = await FakeLxd.start(served);
  driver = newDriver(options);
  await driver.start(soon());
}

type ImageSpec = SpawnSpec & { readonly image: SpawnImage };

function specOf(changes: Partial<ImageSpec> = {}): ImageSpec {
  const uuid = randomUUID();
  return {
    uuid,
    name: `instance-${uuid.slice(0, 8)}`,
    displayName: 'web',
    hostname: 'web-1',
    projectId: 'project-id',
    userId: 'user-id',
    flavor: {
      vcpus: 2,
      memoryMib: 512,
      rootGib: 10,
      cpuIds: null,
      ephemeralsGib: [],
      swapMib: 0,
      extraSpecs: {},
    },
    image: {
      id: 'glance-id',
      cacheKey: 'sha512:abc',
      name: 'debian',
      diskFormat: 'raw',
      containerFormat: 'bare',
      sizeBytes: ROOT.length,
      properties: {},
      open: async () => {
        opened += 1;
        return Readable.from([ROOT]);
      },
    },
    ...changes,
  };
}

async function spawn(spec: SpawnSpec, nics: readonly SpawnNic[] = []): Promise<SpawnSpec> {
  await driver.spawn(spec, { network: async () => nics }, soon());
  return spec;
}

function instanceOf(spec: SpawnSpec) {
  const instance = server.instances.get(spec.name);
  if (!instance) throw new Error(`no ${spec.name}`);
  return instance;
}

beforeEach(async () => {
  opened = 0;
  swaps = 'Filename Type Size Used Priority\n/dev/vdb partition 8388604 0 -2\n';
  await begin();
});
afterEach(leave);

describe('swap of a flavor', () => {
  const extensions = ['instances', 'cloud_init', 'instance_memory_swap_bytes'];
  const flavor = { ...specOf().flavor, swapMib: 256 };

  it('is what the instance may swap beside its memory, and goes with the flavor', async () => {
    await begin({ extensions });
    const spec = await spawn(specOf({ flavor }));
    expect(() => driver.checkFlavor(flavor)).not.toThrow();
    expect(instanceOf(spec).config).toMatchObject({ 'limits.memory': '512MiB', 'limits.memory.swap': '256MiB' });

    await driver.resize(spec.uuid, { ...flavor, swapMib: 0 }, soon());

    expect(instanceOf(spec).config).not.toHaveProperty('limits.memory.swap');
  });

  it.each([
    ['an engine that knows no sizes of swap', undefined, undefined, /cannot limit swap by size/],
    ['a host without swap', extensions, 'Filename Type Size Used Priority\n', /has no swap space/],
  ])('is refused on %s', async (_where, served, found, reason) => {
    swaps = found ?? swaps;
    await begin(served ? { extensions: served } : {});

    expect(() => driver.checkFlavor(flavor)).toThrow(reason);
    expect(() => driver.checkFlavor({ ...flavor, swapMib: 0 })).not.toThrow();
  });
});

describe('a spawned instance', () => {
  it('carries its limits, devices and marks itself, and no profile', async () => {
    const spec = await spawn(specOf(), [NIC]);

    expect(instanceOf(spec)).toMatchObject({
      profiles: [],
      status: 'Running',
      config: {
        'boot.autostart': 'false',
        'limits.cpu': '2',
        'limits.memory': '512MiB',
        'user.nova.uuid': spec.uuid,
        'user.nova.project_id': 'project-id',
        'user.nova.user_id': 'user-id',
        'user.nova.name': 'web',
        'user.nova.hostname': 'web-1',
      },
      devices: {
        root: { type: 'disk', path: '/', pool: 'default', size: '10GiB' },
        eth0: {
          type: 'nic',
          nictype: 'physical',
          parent: 'tin0123',
          name: 'eth0',
          hwaddr: 'fa:16:3e:00:00:01',
          mtu: '1450',
        },
      },
    });
  });

  it('is never privileged unless the operator allows it, whatever the flavor says', async () => {
    const flavor = { ...specOf().flavor, extraSpecs: { 'lxd:privileged_allowed': 'true' } };

    await expect(spawn(specOf({ flavor }))).rejects.toMatchObject({ kind: 'forbidden' });
    expect(() => driver.checkFlavor(flavor)).toThrow('not allowed');
    await begin({}, { policy: { allowNesting: true, allowPrivileged: true } });
    expect(instanceOf(await spawn(specOf({ flavor }))).config['security.privileged']).toBe('true');
  });

  it('takes the extra specs of another flavor in place of its own', async () => {
    const { flavor } = specOf();
    const spec = await spawn(specOf({ flavor: { ...flavor, extraSpecs: { 'quota:cpu_shares': '512' } } }));
    await driver.powerOff(spec.uuid, { graceSeconds: 0 }, soon());

    await driver.resize(spec.uuid, { ...flavor, extraSpecs: { 'quota:disk_total_iops_sec': '9' } }, soon());

    expect(instanceOf(spec).config).not.toHaveProperty('limits.cpu.allowance');
    expect(instanceOf(spec).devices['root']).toMatchObject({ 'limits.max': '9iops', size: '10GiB' });
  });

  it.each([
    ['auto', [{ name: 'p', driver: 'zfs', config: {} }], '10GiB'],
    ['auto', [{ name: 'p', driver: 'dir', config: {} }], undefined],
    ['auto', [{ name: 'p', driver: 'overlay', config: {}, quotas: true }], '10GiB'],
    ['auto', [{ name: 'p', driver: 'overlay', config: {}, quotas: false }], undefined],
    ['always', [{ name: 'p', driver: 'dir', config: {} }], '10GiB'],
    ['never', [{ name: 'p', driver: 'zfs', config: {} }], undefined],
  ] as const)('with root_quota %s on %j has the size %s', async (rootQuota, pools, size) => {
    await begin({ pools }, { rootQuota, storagePool: 'p' });

    const spec = await spawn(specOf());

    expect(instanceOf(spec).devices['root']?.['size']).toBe(size);
  });

  it('has the profiles of the configuration', async () => {
    await begin({}, { profiles: ['base', 'gpu'] });

    expect(instanceOf(await spawn(specOf())).profiles).toEqual(['base', 'gpu']);
  });
});

describe('what a process that was killed during a snapshot left', () => {
  const stale = `nova-${randomUUID()}`;

  it('is removed by the next one; what others made, and what is in use, stays', async () => {
    const spec = await spawn(specOf());
    server.snapshots.set(spec.name, [stale, 'mine', 'nova-daily']);
    server.addInstance('theirs');
    server.snapshots.set('theirs', [stale]);
    for (const [fingerprint, snapshot] of [
      ['aa', stale],
      ['bb', undefined],
    ] as const) {
      const properties: Record<string, string> = snapshot === undefined ? {} : { 'nova.snapshot': snapshot };
      const content = Buffer.alloc(0);
      server.images.set(fingerprint, { fingerprint, metadata: undefined, content, filename: 'x', properties });
    }
    const live = await driver.snapshot(spec.uuid, soon());

    await driver.removeLeftovers(soon());
    await poll(() => (server.images.has('aa') ? undefined : true), 10, soon());

    expect(server.images.has('bb')).toBe(true);
    expect(server.snapshots.get('theirs')).toEqual([stale]);
    const left = server.snapshots.get(spec.name) ?? [];
    expect(left).not.toContain(stale);
    expect(left.slice(0, 2)).toEqual(['mine', 'nova-daily']);
    expect(left).toHaveLength(3);
    await live[Symbol.asyncDispose]();
    expect(server.snapshots.get(spec.name)).toEqual(['mine', 'nova-daily']);
  });
});

describe('a snapshot', () => {
  it('has properties of its own, and leaves nothing in the engine', async () => {
    const spec = await spawn(specOf());
    const before = [...server.images.keys()];

    const snapshot = await driver.snapshot(spec.uuid, soon());
    const content = await buffer(await snapshot.open(soon()));
    const [published] = [...server.images.values()].filter(({ fingerprint }) => !before.includes(fingerprint));
    await snapshot[Symbol.asyncDispose]();

    expect(tarNames(content)).toContain('metadata.yaml');
    // the guest's image is found in the cache by its property: the snapshot must not pass for it
    expect(published?.properties).not.toHaveProperty('nova.cache_key');
    expect([...server.images.keys()]).toEqual(before);
    expect(server.snapshots.get(spec.name)).toEqual([]);
  });

  it('whose publication fails leaves nothing in the engine', async () => {
    const spec = await spawn(specOf());
    const before = [...server.images.keys()];
    server.failLater(/^POST .*images$/, 'no space left');

    const snapshot = await driver.snapshot(spec.uuid, soon());
    await expect(snapshot.open(soon())).rejects.toThrow('no space left');
    await snapshot[Symbol.asyncDispose]();

    expect([...server.images.keys()]).toEqual(before);
    expect(server.snapshots.get(spec.name)).toEqual([]);
  });
});

describe('a password', () => {
  const passwordIn = async (programs: readonly string[], password: string): Promise<readonly string[]> => {
    await begin({ programs });
    const { uuid } = await spawn(specOf());
    await driver.setPassword(uuid, { user: 'root', password }, soon());
    return server.runs.passwords;
  };

  it('is set by the program that the guest has', async () => {
    expect(await passwordIn(['chpasswd'], 'a:b c')).toEqual(['a:b c']);
    expect(await passwordIn(['passwd'], 'a:b c')).toEqual(['a:b c']);
  });

  it('cannot be set without one', async () => {
    await expect(passwordIn([], 'secret')).rejects.toMatchObject({ kind: 'unsupported' });
  });

  it.each(['', 'two\nroot:lines', 'a\0b', 'x'.repeat(1025)])('is one line: %j', async (password) => {
    await expect(passwordIn(['chpasswd'], password)).rejects.toMatchObject({ kind: 'invalid' });
  });
});

describe('the volumes of an instance', () => {
  const volume = (volumeId: string, guestPath: string) => ({ volumeId, hostPath: `/volumes/${volumeId}`, guestPath });
  const volumesOf = (spec: SpawnSpec) =>
    Object.entries(instanceOf(spec).devices).filter(([, { type }]) => type === 'unix-block');

  it('are block devices that come and go one by one', async () => {
    const spec = specOf();
    const hooks = { network: async () => [NIC], volumes: async () => [volume('one', '/dev/sdb')] };
    await driver.spawn(spec, hooks, soon());

    await driver.attachVolume(spec.uuid, volume('two', '/dev/sdc'), soon());
    await driver.detachVolume(spec.uuid, 'one', soon());

    const device = { type: 'unix-block', source: '/volumes/two', path: '/dev/sdc' };
    expect(volumesOf(spec)).toEqual([['volume-two', device]]);
  });

  it('are served as file systems where the engine can, and refused elsewhere', async () => {
    const mounted = { ...volume('one', '/dev/sdb'), mount: { path: '/volumes/sdb', formats: true } };
    const plain = await spawn(specOf(), [NIC]);
    await expect(driver.attachVolume(plain.uuid, mounted, soon())).rejects.toMatchObject({ kind: 'unsupported' });
    const hooks = { network: async () => [NIC], volumes: async () => [mounted] };
    await expect(driver.spawn(specOf(), hooks, soon())).rejects.toMatchObject({ kind: 'unsupported' });

    await begin({ extensions: ['instances', 'cloud_init', 'lighter_disk_served'] });
    const spec = specOf();
    await driver.spawn(spec, hooks, soon());

    const served = { 'lighter.served': 'true', 'lighter.served.format': 'true' };
    expect(instanceOf(spec).devices['volume-one']).toEqual({
      type: 'disk',
      source: '/volumes/one',
      path: '/volumes/sdb',
      ...served,
    });
    await driver.setVolumes(spec.uuid, [volume('one', '/dev/sdb')], soon());
    expect(volumesOf(spec).map(([name]) => name)).toEqual(['volume-one']);
    await driver.setVolumes(spec.uuid, [], soon());
    expect(Object.keys(instanceOf(spec).devices)).not.toContain('volume-one');
  });

  it('are replaced together, and nothing else is', async () => {
    const spec = await spawn(specOf(), [NIC]);
    await driver.attachVolume(spec.uuid, volume('one', '/dev/sdb'), soon());

    await driver.setVolumes(spec.uuid, [volume('two', '/dev/sdb')], soon());

    expect(volumesOf(spec).map(([name]) => name)).toEqual(['volume-two']);
    expect(Object.keys(instanceOf(spec).devices)).toEqual(expect.arrayContaining(['root', 'eth0']));
  });
});

describe('a spawn', () => {
  it('hands the interfaces over while Neutron wires them, and starts when it has', async () => {
    const { promise: wired, resolve: wire } = Promise.withResolvers<void>();
    const spec = specOf();
    const spawned = driver.spawn(spec, { network: async () => [NIC], wired: () => wired }, soon());

    await poll(() => (server.instances.get(spec.name)?.devices['eth0'] ? true : undefined), 5, soon());
    const before = instanceOf(spec).status;
    wire();
    await spawned;

    expect(before).toBe('Stopped');
    expect(instanceOf(spec).status).toBe('Running');
  });

  it('makes the root file system while the network is made', async () => {
    const { promise: made, resolve: make } = Promise.withResolvers<void>();
    const spec = specOf();
    const spawned = driver.spawn(
      spec,
      {
        network: async () => {
          await made;
          return [NIC];
        },
      },
      soon(),
    );

    await poll(() => (server.instances.has(spec.name) ? true : undefined), 5, soon());
    make();
    await spawned;

    expect(instanceOf(spec)).toMatchObject({ status: 'Running', devices: { eth0: { parent: 'tin0123' } } });
  });

  it('removes what it made when the engine is back, if the engine was gone when it failed', async () => {
    const spec = specOf();
    const wired = async (): Promise<void> => {
      await poll(() => (server.instances.has(spec.name) ? true : undefined), 5, soon());
      await server.shutDown();
      throw new Error('no wire');
    };

    await expect(driver.spawn(spec, { network: async () => [], wired }, soon())).rejects.toThrow('no wire');
    const left = server.instances.has(spec.name);
    await server.listen();

    expect(left).toBe(true);
    await poll(() => (server.instances.has(spec.name) ? undefined : true), 20, soon());
  });

  it('does not touch an instance of somebody else with its name', async () => {
    const spec = specOf();
    server.addInstance(spec.name, { 'user.owner': 'admin' });

    await expect(spawn(spec)).rejects.toMatchObject({ kind: 'conflict' });

    expect(instanceOf(spec).config).toEqual({ 'user.owner': 'admin' });
  });

  it('does not undo what another one made meanwhile under its name', async () => {
    const spec = specOf();
    const hooks = {
      network: async () => {
        server.addInstance(spec.name, { 'user.owner': 'admin' });
        return [];
      },
    };
    await begin({ extensions: ['instances', 'instance_create_start'] });

    await expect(driver.spawn(spec, hooks, soon())).rejects.toMatchObject({ kind: 'conflict' });

    expect(instanceOf(spec).config).toEqual({ 'user.owner': 'admin' });
  });

  it('removes what it made when the start fails, and tells why', async () => {
    const spec = specOf();
    server.failLater(/state$/, 'Failed to run: forkstart: exit status 1');

    await expect(spawn(spec)).rejects.toThrow('forkstart');

    expect(server.instances.size).toBe(0);
    expect(server.images.size).toBe(1);
  });

  it('waits for a creation that it gave up before it removes the rest', async () => {
    await begin({ operationMs: 150 });
    const caller = new AbortController();
    const spec = specOf();
    const spawned = driver.spawn(spec, { network: async () => [] }, caller.signal);
    spawned.catch(() => undefined);
    await poll(() => (server.requests.includes('POST /1.0/instances') ? true : undefined), 5, soon());

    caller.abort(new Error('deleted meanwhile'));

    await expect(spawned).rejects.toThrow('deleted meanwhile');
    expect(server.instances.size).toBe(0);
  });

  it('is a failure of the engine, not a cancellation, when it takes too long', async () => {
    await begin({ operationMs: 400 }, { spawnTimeoutMs: 100, imageTimeoutMs: 50 });

    await expect(spawn(specOf())).rejects.toMatchObject({ kind: 'unavailable' });
  });
});

describe('the image cache', () => {
  it('fetches once for ten spawns at the same time', async () => {
    await begin({ operationMs: 20 });

    await Promise.all(Array.from({ length: 10 }, async () => spawn(specOf())));

    expect(opened).toBe(1);
    expect(server.images.size).toBe(1);
    expect(server.instances.size).toBe(10);
  });

  it('makes an image of a bare root file system, with metadata of its own', async () => {
    await spawn(specOf());

    const [image] = [...server.images.values()];
    expect(image?.content).toEqual(ROOT);
    expect(image?.metadata && tarNames(image.metadata)).toEqual(['metadata.yaml', 'templates/hostname.tpl']);
    expect(image?.metadata?.toString()).toContain('"architecture": "x86_64"');
    expect(image?.filename).toBe('glance-id.tar');
  });

  it('finds an image whose name was not made when its process died', async () => {
    await spawn(specOf());
    server.aliases.clear();

    await spawn(specOf());

    expect(opened).toBe(1);
    expect(server.aliases.size).toBe(1);
  });

  it('fetches again when the image was deleted in the engine', async () => {
    await spawn(specOf());
    server.images.clear();
    server.aliases.clear();

    await spawn(specOf());

    expect(opened).toBe(2);
  });

  it('fetches again when the image vanishes between look-up and creation', async () => {
    await spawn(specOf());
    const [alias = ''] = server.aliases.keys();
    server.images.clear();
    server.fail(/POST \/1.0\/instances/, 404, 'Image not found');
    setTimeout(() => server.aliases.delete(alias), 0);

    await spawn(specOf());

    expect(opened).toBe(2);
  });

  it('uses the image of another process that sent the same bytes at the same time', async () => {
    await begin({ operationMs: 50 });
    const other = newDriver();
    await other.start(soon());

    await Promise.all([spawn(specOf()), other.spawn(specOf(), { network: async () => [] }, soon())]);
    await other.stop();

    expect(opened).toBe(2);
    expect(server.images.size).toBe(1);
    expect(server.instances.size).toBe(2);
  });

  it('goes on for the others when the one that began it goes away', async () => {
    const { promise: gate, resolve: open } = Promise.withResolvers<void>();
    const image = { ...specOf().image, cacheKey: 'slow', open: async () => (await gate, Readable.from([ROOT])) };
    const first = new AbortController();
    const gone = driver.spawn(specOf({ image }), { network: async () => [] }, first.signal);
    gone.catch(() => undefined);
    const stays = spawn(specOf({ image }));
    await poll(() => (server.requests.includes('GET /1.0/images') ? true : undefined), 5, soon());

    first.abort(new Error('gone'));
    await expect(gone).rejects.toThrow('gone');
    open();

    await expect(stays).resolves.toBeDefined();
  });

  it('gives up when nobody waits any more', async () => {
    let seen: AbortSignal | undefined;
    const open = (signal: AbortSignal): Promise<Readable> => {
      seen = signal;
      return new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason as Error));
      });
    };
    const caller = new AbortController();
    const spec = specOf({ image: { ...specOf().image, cacheKey: 'never', open } });
    const gone = driver.spawn(spec, { network: async () => [] }, caller.signal);
    gone.catch(() => undefined);
    await poll(() => (seen === undefined ? undefined : true), 5, soon());

    caller.abort(new Error('gone'));
    await expect(gone).rejects.toThrow('gone');

    expect(seen?.aborted).toBe(true);
  });

  it('drops an image that the engine cannot unpack, as unacceptable', async () => {
    server.failLater(/POST \/1.0\/instances/, 'Failed to unpack image: tar: Unexpected EOF in archive');

    await expect(spawn(specOf())).rejects.toMatchObject({ kind: 'invalid' });

    expect(server.images.size).toBe(0);
    expect(server.instances.size).toBe(0);
  });

  it('refuses an image for another architecture before it is fetched', async () => {
    const image = { ...specOf().image, properties: { hw_architecture: 'aarch64' } };

    await expect(spawn(specOf({ image }))).rejects.toMatchObject({ kind: 'invalid' });

    expect(opened).toBe(0);
  });
});

describe('instances without marks', () => {
  it('are not listed', async () => {
    server.addInstance('mine', {});
    const spec = await spawn(specOf());

    expect((await driver.listInstances(soon())).map(({ name }) => name)).toEqual([spec.name]);
  });

  it('make no events', async () => {
    const events: LifecycleEvent[] = [];
    driver.onLifecycle((event) => events.push(event));
    server.addInstance('mine', {});

    server.lifecycle('instance-started', '/1.0/instances/mine');
    const spec = await spawn(specOf());
    await poll(() => (events.length > 0 ? true : undefined), 5, soon());

    expect(events.map(({ uuid }) => uuid)).toEqual([spec.uuid]);
  });

  it('are not taken for one that was renamed onto another', async () => {
    const spec = await spawn(specOf());
    const instance = instanceOf(spec);
    server.instances.delete(spec.name);
    server.addInstance(spec.name, { 'user.owner': 'admin' });
    server.instances.set('moved', { ...instance, name: 'moved' });

    await driver.powerOff(spec.uuid, { graceSeconds: 0 }, soon());

    expect(server.instances.get('moved')?.status).toBe('Stopped');
    expect(await driver.powerState(spec.uuid, soon())).toBe(POWER_STATE.shutdown);
  });
});

describe('a resize', () => {
  it('changes limits and root disk, and nothing else', async () => {
    const spec = await spawn(specOf(), [NIC]);
    await driver.powerOff(spec.uuid, { graceSeconds: 0 }, soon());
    const { config, devices } = structuredClone(instanceOf(spec));

    await driver.resize(spec.uuid, { ...spec.flavor, vcpus: 3, memoryMib: 384, rootGib: 7 }, soon());

    expect(instanceOf(spec).config).toEqual({ ...config, 'limits.cpu': '3', 'limits.memory': '384MiB' });
    const { root, ...others } = instanceOf(spec).devices;
    const { root: before, ...othersBefore } = devices;
    expect(others).toEqual(othersBefore);
    expect(root).toEqual(before?.['size'] === undefined ? before : { ...before, size: '7GiB' });
  });
});

describe('power', () => {
  it('on replaces the interfaces', async () => {
    const spec = await spawn(specOf(), [NIC]);
    await driver.powerOff(spec.uuid, { graceSeconds: 0 }, soon());

    await driver.powerOn(spec.uuid, [{ ...NIC, hostInterface: 'tin9999', guestInterface: 'eth1' }], soon());

    const { devices } = instanceOf(spec);
    expect(Object.keys(devices).sort()).toEqual(['eth1', 'root']);
    expect(devices['eth1']).toMatchObject({ parent: 'tin9999' });
  });

  it('on changes nothing when the interfaces are right', async () => {
    const spec = await spawn(specOf(), [NIC]);
    await driver.powerOff(spec.uuid, { graceSeconds: 0 }, soon());

    await driver.powerOn(spec.uuid, [NIC], soon());

    expect(server.requests).not.toContain(`PUT /1.0/instances/${spec.name}`);
  });

  it('on tries again when the instance changed meanwhile', async () => {
    const spec = await spawn(specOf());
    await driver.powerOff(spec.uuid, { graceSeconds: 0 }, soon());
    server.fail(new RegExp(`PUT /1.0/instances/${spec.name}$`), 412, "ETag doesn't match");

    await driver.powerOn(spec.uuid, [NIC], soon());

    expect(instanceOf(spec)).toMatchObject({ status: 'Running', devices: { eth0: { parent: 'tin0123' } } });
  });

  it('off kills what does not shut down in time', async () => {
    await begin({ ignoresShutdown: true });
    const spec = await spawn(specOf());

    await driver.powerOff(spec.uuid, { graceSeconds: 1 }, soon());

    expect(instanceOf(spec).status).toBe('Stopped');
    expect(server.requests.filter((line) => line === `PUT /1.0/instances/${spec.name}/state`)).toHaveLength(3);
  });

  it('soft reboot fails with "conflict" when init does not react', async () => {
    await begin({ ignoresShutdown: true });
    const spec = await spawn(specOf());

    await expect(driver.softReboot(spec.uuid, soon())).rejects.toMatchObject({ kind: 'conflict' });

    expect(instanceOf(spec).status).toBe('Running');
  });

  it('off is tried again when the engine is busy with the instance', async () => {
    const spec = await spawn(specOf());
    server.failLater(/state$/, 'Instance is busy running a "restart" operation');

    await driver.powerOff(spec.uuid, { graceSeconds: 0 }, soon());

    expect(instanceOf(spec).status).toBe('Stopped');
  });

  it('off is done when the container ended by itself meanwhile', async () => {
    const spec = await spawn(specOf());
    server.failLater(/state$/, `container is not running: "${spec.name}"`);

    await driver.powerOff(spec.uuid, { graceSeconds: 0 }, soon());

    expect(server.requests.filter((line) => line.endsWith('/state') && line.startsWith('PUT'))).toHaveLength(2);
  });

  it('on waits for an engine that cleans up after a container without an operation to wait for', async () => {
    const spec = await spawn(specOf());
    server.setStatus(spec.name, 'Stopped');
    for (let refused = 0; refused < 6; refused += 1) {
      const text = 'Failed to create instance start operation: Instance is busy running a "stop" operation';
      server.failLater(/state$/, text);
    }

    await driver.powerOn(spec.uuid, [], soon());

    expect(instanceOf(spec).status).toBe('Running');
  });
});

describe('events', () => {
  it('that were missed while the stream was broken are found by looking', async () => {
    const [stops, stays] = [await spawn(specOf()), await spawn(specOf())];
    const events: LifecycleEvent[] = [];
    driver.onLifecycle((event) => events.push(event));
    await new Promise((resolve) => setTimeout(resolve, 50));
    events.length = 0;

    server.breakStreams();
    server.setStatus(stops.name, 'Stopped');

    await poll(() => (events.length > 0 ? true : undefined), 10, soon());
    expect(events).toEqual([{ uuid: stops.uuid, event: 'stopped' }]);
    expect(instanceOf(stays).status).toBe('Running');
  });

  it.each([
    ['instance-shutdown', 'stopped'],
    ['instance-restarted', 'started'],
    ['instance-paused', 'paused'],
    ['instance-resumed', 'resumed'],
  ])('%s is %s', async (action, event) => {
    const spec = await spawn(specOf());
    const events: LifecycleEvent[] = [];
    driver.onLifecycle((each) => events.push(each));

    server.lifecycle(action, `/1.0/instances/${spec.name}?project=default`);

    await poll(() => (events.some((each) => each.event === event) ? true : undefined), 5, soon());
  });
});

describe('start', () => {
  it('says that the engine is away', async () => {
    await server.shutDown();

    await expect(newDriver().start(soon())).rejects.toMatchObject({ kind: 'unavailable' });

    await server.listen();
  });

  it('says what to do when the engine does not trust the client', async () => {
    await expect(begin({ auth: 'untrusted' })).rejects.toMatchObject({
      kind: 'unavailable',
      message: expect.stringContaining('trust') as string,
    });
  });

  it('says what to do when there is no such pool', async () => {
    await expect(begin({}, { storagePool: 'fast' })).rejects.toMatchObject({
      kind: 'unavailable',
      message: expect.stringContaining('storage pool fast') as string,
    });
  });
});
