// What a guest finds when it boots: config drive, files, keys of cloud-init; what is left of it when things go wrong.
import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type GuestData, GuestFileError, type SpawnHooks, type SpawnSpec } from '#drivers/virt/driver.ts';
import { LxdDriver } from '#drivers/virt/lxd/driver.ts';
import { DEFAULT_OPTIONS, type LxdDriverOptions } from '#drivers/virt/lxd/options.ts';
import { silentLog } from '#src/lib/log.ts';
import { writeTar } from '#src/lib/tar.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';
import { FakeLoops } from '#test/fakes/fake-loops.ts';
import { FakeLxd, type FakeLxdOptions } from '#test/fakes/fake-lxd.ts';

const ROOT = writeTar([{ name: 'sbin/init', content: '#!/bin/sh\n' }]);
const DRIVES = '/var/lib/nova/config-drives';
const NOTHING: GuestData = {
  cloudInit: { metaData: 'instance-id: "1"\n', userData: null, vendorData: null, networkConfig: null },
  configDrive: null,
  files: [],
  rootKey: null,
};
const DRIVE = [
  { path: 'openstack/latest/meta_data.json', content: Buffer.from('{"admin_pass":"secret"}') },
  { path: 'openstack/content/0000', content: Buffer.from([0, 0xff, 1]) },
];

let server: FakeLxd;
let host: FakeHost;
let driver: LxdDriver;

const soon = (): AbortSignal => AbortSignal.timeout(5000);

function specOf(): SpawnSpec {
  const uuid = randomUUID();
  return {
    uuid,
    name: `instance-${uuid.slice(0, 8)}`,
    displayName: 'web',
    hostname: 'web-1',
    projectId: 'project-id',
    userId: 'user-id',
    flavor: { vcpus: 1, memoryMib: 64, rootGib: 1, cpuIds: null, ephemeralsGib: [], swapMib: 0, extraSpecs: {} },
    image: {
      id: 'glance-id',
      cacheKey: 'sha512:abc',
      name: 'debian',
      diskFormat: 'raw',
      containerFormat: 'bare',
      sizeBytes: ROOT.length,
      properties: {},
      open: async () => Readable.from([ROOT]),
    },
  };
}

function hooksWith(guest: Partial<GuestData>): SpawnHooks {
  return { network: async () => [], guest: async () => ({ ...NOTHING, ...guest }) };
}

async function spawn(guest: Partial<GuestData>, spec = specOf()): Promise<SpawnSpec> {
  await driver.spawn(spec, hooksWith(guest), soon());
  return spec;
}

function instanceOf({ name }: SpawnSpec) {
  const instance = server.instances.get(name);
  if (!instance) throw new Error(`no ${name}`);
  return instance;
}

async function begin(
  options: FakeLxdOptions = { extensions: ['instances', 'lighter_disk_shift'] },
  changed: Partial<LxdDriverOptions> = {},
): Promise<void> {
  await leave();
  server = await FakeLxd.start(options);
  host = new FakeHost();
  driver = new LxdDriver({
    log: silentLog,
    host,
    options: { ...DEFAULT_OPTIONS, endpoint: server.endpoint, stateFolder: '/var/lib/nova', ...changed },
  });
  await driver.start(soon());
}

async function leave(): Promise<void> {
  await driver?.stop();
  await server?.[Symbol.asyncDispose]();
}

beforeEach(async () => begin());
afterEach(leave);

describe('cloud-init', () => {
  it('is told what there is, by keys that every image reads', async () => {
    const cloudInit = {
      metaData: 'a: 1\n',
      userData: '#!/bin/sh\n',
      vendorData: '#cloud-config\n',
      networkConfig: '{}\n',
    };

    const { config } = instanceOf(await spawn({ cloudInit }));

    expect(config).toMatchObject({
      'user.meta-data': 'a: 1\n',
      'user.user-data': '#!/bin/sh\n',
      'user.vendor-data': '#cloud-config\n',
      'user.network-config': '{}\n',
    });
  });

  it('answers nobody while it is paused, where the engine can see to that', async () => {
    expect(instanceOf(await spawn({})).config).not.toHaveProperty('lighter.pause.silent');
    await begin({ extensions: ['instances', 'lighter_pause_silent'] });

    expect(instanceOf(await spawn({})).config['lighter.pause.silent']).toBe('true');
  });

  it('is sent to the metadata service, unless there is none', async () => {
    expect(instanceOf(await spawn({})).config['environment.product_name']).toBe('OpenStack Nova');
    await begin({}, { metadataService: false });

    expect(instanceOf(await spawn({})).config).not.toHaveProperty('environment.product_name');
  });

  it('is told nothing of what there is not', async () => {
    const { config } = instanceOf(await spawn({}));

    const keys = Object.keys(config).filter((key) => /^user\.[a-z]+-/.test(key));
    expect(keys).toEqual(['user.meta-data']);
  });
});

describe('a config drive', () => {
  it('is a tree for root alone, shown read-only through the id map of the container', async () => {
    const spec = await spawn({ configDrive: DRIVE });

    const drive = `${DRIVES}/${spec.uuid}`;
    expect(instanceOf(spec).devices['config-drive']).toEqual({
      type: 'disk',
      source: drive,
      path: '/config-drive',
      readonly: 'true',
      shift: 'true',
    });
    expect(host.files.get(`${drive}/openstack/latest/meta_data.json`)).toBe('{"admin_pass":"secret"}');
    expect(host.files.get(`${drive}/openstack/content/0000`)).toBe('\x00\xff\x01');
    expect((await host.status(DRIVES)).mode).toBe(0o700);
    expect((await host.status(`${drive}/openstack/content`)).mode).toBe(0o500);
    expect((await host.status(`${drive}/openstack/content/0000`)).mode).toBe(0o400);
  });

  it('belongs to root of the container where the engine does not map ids, also when that has changed', async () => {
    await begin({ extensions: ['instances'] });
    const spec = specOf();
    const map = (id: number) => JSON.stringify([{ Isuid: true, Isgid: true, Hostid: id, Nsid: 0, Maprange: 65536 }]);
    const hooks = hooksWith({ configDrive: DRIVE });
    const network = async () => {
      await expect.poll(() => server.instances.has(spec.name)).toBe(true);
      Object.assign(instanceOf(spec).config, { 'volatile.idmap.next': map(100_000) });
      return [];
    };

    await driver.spawn(spec, { ...hooks, network }, soon());
    Object.assign(instanceOf(spec).config, { 'volatile.idmap.next': map(200_000) });
    await driver.powerOff(spec.uuid, { graceSeconds: 0 }, soon());
    await driver.powerOn(spec.uuid, [], soon());

    expect(instanceOf(spec).devices['config-drive']).not.toHaveProperty('shift');
    const chown = (id: number) => `chown -R -h ${id}:${id} -- ${DRIVES}/${spec.uuid}`;
    expect(host.calls.filter((call) => call.startsWith('chown'))).toEqual([chown(100_000), chown(200_000)]);
  });

  it('is published as a whole', async () => {
    const spec = await spawn({ configDrive: DRIVE });

    expect(host.calls).toContain(`rename ${DRIVES}/.${spec.uuid} ${DRIVES}/${spec.uuid}`);
    expect(await host.list(DRIVES)).toEqual([spec.uuid]);
  });

  it('replaces what a killed spawn left of the same instance', async () => {
    const spec = specOf();
    host.files.set(`${DRIVES}/.${spec.uuid}/old`, 'x').set(`${DRIVES}/${spec.uuid}/old`, 'x');

    await spawn({ configDrive: DRIVE }, spec);

    expect(await host.list(`${DRIVES}/${spec.uuid}`)).toEqual(['openstack']);
    expect(await host.list(DRIVES)).toEqual([spec.uuid]);
  });

  it('goes with its instance, and with a spawn that fails', async () => {
    const spec = await spawn({ configDrive: DRIVE });
    server.failLater(/state/, 'no start');

    await expect(spawn({ configDrive: DRIVE })).rejects.toThrow('no start');
    expect(await host.list(DRIVES)).toEqual([spec.uuid]);
    await driver.destroy(spec.uuid, soon());

    expect(await host.list(DRIVES)).toEqual([]);
  });

  it('stays where it is through resizes and power cycles', async () => {
    const spec = await spawn({ configDrive: DRIVE });
    const { 'config-drive': device } = instanceOf(spec).devices;

    await driver.powerOff(spec.uuid, { graceSeconds: 0 }, soon());
    await driver.resize(spec.uuid, { ...spec.flavor, memoryMib: 128 }, soon());
    await driver.powerOn(spec.uuid, [], soon());

    expect(instanceOf(spec).devices['config-drive']).toEqual(device);
    expect(await host.list(DRIVES)).toEqual([spec.uuid]);
  });

  it('of an instance that there is not any more is removed at the next start', async () => {
    const spec = await spawn({ configDrive: DRIVE });
    host.files.set(`${DRIVES}/.${randomUUID()}/half`, 'x').set(`${DRIVES}/${randomUUID()}/whole`, 'x');

    await driver.removeLeftovers(soon());

    expect(await host.list(DRIVES)).toEqual([spec.uuid]);
  });

  it('is nothing that an engine elsewhere could show', async () => {
    const endpoint = { kind: 'https', url: 'https://elsewhere:1', clientCertificate: '', clientKey: '' } as const;
    const options = { ...DEFAULT_OPTIONS, endpoint, stateFolder: '/var/lib/nova' };

    const removing = new LxdDriver({ log: silentLog, host, options }).removeLeftovers(soon());

    await expect(removing).rejects.toMatchObject({ kind: 'unavailable' });
    expect(host.calls).toEqual(['remove /var/lib/nova/disk-images']);
  });

  it.each(['../escape', '/absolute', 'a/../../b'])('has no file at %s', async (path) => {
    await expect(spawn({ configDrive: [{ path, content: Buffer.alloc(0) }] })).rejects.toMatchObject({
      kind: 'internal',
    });
  });

  it('is not made for what is no uuid', async () => {
    const spec = { ...specOf(), uuid: '../../etc' };

    await expect(spawn({ configDrive: DRIVE }, spec)).rejects.toMatchObject({ kind: 'invalid' });
    await expect(driver.destroy(spec.uuid, soon())).rejects.toMatchObject({ kind: 'invalid' });
  });
});

describe('injected files', () => {
  it('are root’s, with the folders that they need', async () => {
    const spec = await spawn({ files: [{ path: '/opt/app/conf', content: Buffer.from('x') }] });

    expect(server.filesOf(spec.name).list()).toEqual([
      '/opt directory 0755 0:0',
      '/opt/app directory 0755 0:0',
      '/opt/app/conf file 0644 0:0',
    ]);
  });

  it('are there before the guest starts', async () => {
    await spawn({ files: [{ path: '/etc/motd', content: Buffer.from('x') }] });

    const put = server.requests.findIndex((line) => /^POST .*\/files/.test(line));
    const start = server.requests.findIndex((line) => /^PUT .*\/state/.test(line));
    expect(put).toBeGreaterThan(0);
    expect(put).toBeLessThan(start);
  });

  it.each([
    ['etc/motd', '/etc/motd'],
    ['/../../etc/motd', '/etc/motd'],
    ['/etc//./motd', '/etc/motd'],
  ])('with the path %s are at %s', async (path, inside) => {
    const spec = await spawn({ files: [{ path, content: Buffer.from('x') }] });

    expect(server.filesOf(spec.name).get(inside)?.content.toString()).toBe('x');
  });

  it.each(['/', '', '/etc/', '/a\0b', `/${'x'.repeat(5000)}`])('cannot be at %j', async (path) => {
    const spec = specOf();

    const failure = spawn({ files: [{ path, content: Buffer.from('x') }] }, spec);

    await expect(failure).rejects.toBeInstanceOf(GuestFileError);
    expect(server.instances.has(spec.name)).toBe(false);
  });

  it('cannot be below a file', async () => {
    const files = [
      { path: '/etc/motd', content: Buffer.from('x') },
      { path: '/etc/motd/below', content: Buffer.from('x') },
    ];

    await expect(spawn({ files })).rejects.toBeInstanceOf(GuestFileError);
  });
});

describe('the key of root', () => {
  it('is added to what an image has', async () => {
    const spec = await spawn({ rootKey: 'ssh-rsa AAAA me\n' });

    expect(server.filesOf(spec.name).list()).toEqual([
      '/root/.ssh directory 0700 0:0',
      '/root/.ssh/authorized_keys file 0600 0:0',
    ]);
    expect(server.filesOf(spec.name).get('/root/.ssh/authorized_keys')?.content.toString()).toBe('ssh-rsa AAAA me\n');
  });

  it('does not keep a guest from starting when it cannot be given', async () => {
    server.fail(/POST .*\/files/, 500, 'no space left');

    const spec = await spawn({ rootKey: 'ssh-rsa AAAA me' });

    expect(instanceOf(spec).status).toBe('Running');
  });
});

describe('a config drive as a disk', () => {
  const DISKS = '/var/lib/nova/config-drive-disks';
  const BOOT_ID = '/proc/sys/kernel/random/boot_id';
  let loops: FakeLoops;

  async function beginWithDisks(): Promise<void> {
    await begin(undefined, { configDriveDisk: true });
    host.files.set(BOOT_ID, 'boot-1\n');
    loops = new FakeLoops(host);
    host.on(/^genisoimage /, ({ argv }) => {
      host.files.set(argv.at(-2) ?? '', `image of ${argv.at(-1)}`);
      return '';
    });
    host.on(/^ln /, ({ argv }) => {
      host.files.set(argv.at(-1) ?? '', argv.at(-2) ?? '');
      return '';
    });
  }

  /** Of the driver alone. */
  async function restart(configDriveDisk: boolean): Promise<void> {
    await driver.stop();
    const options = { ...DEFAULT_OPTIONS, endpoint: server.endpoint, stateFolder: '/var/lib/nova', configDriveDisk };
    driver = new LxdDriver({ log: silentLog, host, options });
    await driver.start(soon());
  }

  beforeEach(beginWithDisks);

  it('is an image of the tree, for root of the guest to read', async () => {
    const spec = await spawn({ configDrive: DRIVE });

    const link = `${DISKS}/boot-1/${spec.uuid}`;
    const device = { type: 'unix-block', source: link, path: '/dev/sr0', mode: '0400' };
    expect(instanceOf(spec).devices).toMatchObject({ 'config-drive-disk': device, 'config-drive': { type: 'disk' } });
    expect(host.files.get(`${DISKS}/${spec.uuid}.iso`)).toBe(`image of ${DRIVES}/${spec.uuid}`);
    expect(host.files.get(link)).toBe('/dev/loop0');
    expect(host.calls.find((call) => call.startsWith('losetup --nooverlap'))).toContain('--read-only');
    expect((await host.status(DISKS)).mode).toBe(0o700);
  });

  it('is connected anew after a boot of the host', async () => {
    const spec = await spawn({ configDrive: DRIVE });
    await driver.powerOff(spec.uuid, { graceSeconds: 0 }, soon());
    host.files.set(BOOT_ID, 'boot-2\n');
    loops.files.clear();
    loops.files.set('/dev/loop0', '/somebody/else');

    await driver.removeLeftovers(soon());
    await driver.powerOn(spec.uuid, [], soon());

    const link = `${DISKS}/boot-2/${spec.uuid}`;
    expect(instanceOf(spec).devices['config-drive-disk']).toMatchObject({ source: link });
    expect(host.files.get(link)).toBe('/dev/loop1');
    expect(await host.list(DISKS)).toEqual([`${spec.uuid}.iso`, 'boot-2'].toSorted());
  });

  it('goes with its instance, with a spawn that fails, and at the next start when the instance is no more', async () => {
    const spec = await spawn({ configDrive: DRIVE });
    server.failLater(/state/, 'no start');
    await expect(spawn({ configDrive: DRIVE })).rejects.toThrow('no start');
    expect([...loops.files.values()]).toEqual([`${DISKS}/${spec.uuid}.iso`]);
    host.files.set(`${DISKS}/${randomUUID()}.iso`, 'x').set(`${DISKS}/.${randomUUID()}.iso`, 'x');
    await driver.removeLeftovers(soon());
    expect(await host.list(DISKS)).toEqual([`${spec.uuid}.iso`, 'boot-1'].toSorted());

    await driver.destroy(spec.uuid, soon());

    expect([...loops.files.values()]).toEqual([]);
    expect(host.files.has(`${DISKS}/${spec.uuid}.iso`)).toBe(false);
    expect(host.files.has(`${DISKS}/boot-1/${spec.uuid}`)).toBe(false);
  });

  it('comes and goes with what is configured, at the next start of the instance', async () => {
    const spec = await spawn({ configDrive: DRIVE });
    await driver.powerOff(spec.uuid, { graceSeconds: 0 }, soon());

    await restart(false);
    await driver.powerOn(spec.uuid, [], soon());
    expect(instanceOf(spec).devices).not.toHaveProperty('config-drive-disk');
    await driver.powerOff(spec.uuid, { graceSeconds: 0 }, soon());
    await restart(true);
    await driver.powerOn(spec.uuid, [], soon());

    expect(instanceOf(spec).devices).toHaveProperty('config-drive-disk');
  });

  it('is not there without a config drive', async () => {
    const spec = await spawn({});

    expect(instanceOf(spec).devices).not.toHaveProperty('config-drive-disk');
    expect(await host.list(DISKS)).toEqual([]);
  });
});
