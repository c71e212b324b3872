// What guests are told and given, on a real Nova: config drives like those of a stock compute, files, keys, passwords; cloud-init's
// texts without a drive; all of it anew when a server is rebuilt.
import { createHmac, randomUUID } from 'node:crypto';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse as parseYaml } from 'yaml';
import { execIn } from '../integration/guest-exec.ts';
import { makeBusyboxImage } from '../integration/images.ts';
import { poll } from '#src/lib/wait.ts';
import type { Server } from './lab/cloud.ts';
import { waitForPing, waitForStatus, addressOf } from './lab/first-server.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { uploadImage } from './lab/resources.ts';
import { PASSWORD, PORTS } from './lab/settings.ts';
import { cloud, deleteServer, engine, lab, paths } from './lab/suite.ts';

type Json = Readonly<Record<string, any>>;

const KEY_NAME = `guest-data-${randomUUID().slice(0, 8)}`;
const USER_DATA = '#!/bin/sh\necho told\n';
/** The last one that takes files. */
const WITH_FILES = { 'OpenStack-API-Version': 'compute 2.56', 'X-OpenStack-Nova-API-Version': '2.56' };
const DRIVES = join(paths.data, 'compute/config-drives');

const nameOf = (server: Server) => server['OS-EXT-SRV-ATTR:instance_name'];
const base64 = (content: string) => Buffer.from(content).toString('base64');

async function create(extra: Json, networks?: unknown): Promise<Server> {
  const { image, flavor, network } = await lab();
  const server = {
    name: 'guest-data',
    imageRef: image,
    flavorRef: flavor,
    networks: networks ?? [{ uuid: network }],
    key_name: KEY_NAME,
    user_data: base64(USER_DATA),
    metadata: { purpose: 'test' },
    ...extra,
  };
  const headers = extra['personality'] === undefined ? {} : WITH_FILES;
  const made = await cloud.compute.request({ method: 'POST', path: '/servers', body: { server }, headers });
  const active = await waitForStatus(cloud, (made.data as Json)['server'].id, 'ACTIVE');
  if (!active) throw new Error('the server disappeared');
  return active;
}

/** A file of a running guest, mounts included. */
async function fileOf(server: Server, path: string): Promise<string> {
  const { code, stdout } = await execIn(engine, nameOf(server), ['cat', path]);
  if (code !== 0) throw new Error(`${path} cannot be read`);
  return stdout;
}

/** What nova-api's metadata service tells the same instance, as Neutron's proxy would ask it. */
async function told(server: Server, tenant: string, path: string): Promise<string> {
  const signature = createHmac('sha256', PASSWORD).update(server.id).digest('hex');
  const headers = {
    'X-Instance-ID': server.id,
    'X-Tenant-ID': tenant,
    'X-Instance-ID-Signature': signature,
    'X-Forwarded-For': addressOf(server) ?? '10.77.0.1',
  };
  return await new Promise((resolve, reject) => {
    get({ host: '127.0.0.1', port: PORTS.metadata, path, headers }, (response) => {
      if (response.statusCode === 200) resolve(text(response));
      else reject(new Error(`${path}: ${response.statusCode}`));
    }).on('error', reject);
  });
}

async function tenantOf(id: string): Promise<string> {
  return (await cloud.get<{ server: { tenant_id: string } }>(cloud.compute, `/servers/${id}`)).server.tenant_id;
}

let before: Residue;
let publicKey: string;

beforeAll(async () => {
  before = await takeResidue(cloud, paths);
  const body = { keypair: { name: KEY_NAME, type: 'ssh', public_key: realKey() } };
  const made = await cloud.post<{ keypair: { public_key: string } }>(cloud.compute, '/os-keypairs', body);
  publicKey = made.keypair.public_key;
});

/** Nova reads keys. */
function realKey(): string {
  const length = (bytes: Buffer) => Buffer.concat([Buffer.from([0, 0, 0, bytes.length]), bytes]);
  const blob = Buffer.concat([length(Buffer.from('ssh-ed25519')), length(Buffer.alloc(32, 7))]);
  return `ssh-ed25519 ${blob.toString('base64')} test@example`;
}

describe('a server with a config drive', () => {
  let server: Server;
  let metadata: Json;

  it('finds it at /config-drive, with what it was given', async () => {
    const personality = [{ path: '/etc/lab/told', contents: base64('hello') }];
    const { image, network } = await lab();
    const root = { source_type: 'image', destination_type: 'local', boot_index: 0, uuid: image, tag: 'root' };
    const extra = { config_drive: true, adminPass: 'first-secret', personality, block_device_mapping_v2: [root] };
    server = await create(extra, [{ uuid: network, tag: 'first' }]);

    metadata = JSON.parse(await fileOf(server, '/config-drive/openstack/latest/meta_data.json'));

    expect(metadata).toMatchObject({
      uuid: server.id,
      name: 'guest-data',
      hostname: 'guest-data.novalocal',
      meta: { purpose: 'test' },
      admin_pass: 'first-secret',
      public_keys: { [KEY_NAME]: publicKey },
      files: [{ path: '/etc/lab/told', content_path: '/content/0000' }],
      devices: [
        { type: 'nic', tags: ['first'], bus: 'none' },
        { type: 'disk', tags: ['root'] },
      ],
    });
    expect(await fileOf(server, '/config-drive/openstack/content/0000')).toBe('hello');
    expect(await fileOf(server, '/config-drive/openstack/latest/user_data')).toBe(USER_DATA);
    const { config_drive: drive } = (
      await cloud.get<{ server: { config_drive: string } }>(cloud.compute, `/servers/${server.id}`)
    ).server;
    expect(drive).toBe('True');
  });

  it('is told there what the stock metadata service tells it', async () => {
    const tenant = await tenantOf(server.id);
    const versions = ['2012-08-10', '2015-10-15', '2018-08-27', '2020-10-14', 'latest'];
    const ours = async (path: string): Promise<Json> =>
      JSON.parse(await fileOf(server, `/config-drive/openstack/${path}`));
    const theirs = async (path: string): Promise<Json> => JSON.parse(await told(server, tenant, `/openstack/${path}`));

    for (const version of versions) {
      // those who only know the record have neither password nor files, and dice again
      const {
        admin_pass: _pass,
        files: _files,
        random_seed: seed,
        ...document
      } = await ours(`${version}/meta_data.json`);
      const { random_seed: _seed, ...expected } = await theirs(`${version}/meta_data.json`);
      expect(document).toEqual(expected);
      expect(seed === undefined).toBe(_seed === undefined);
    }
    for (const path of ['latest/network_data.json', 'latest/vendor_data.json', 'latest/vendor_data2.json']) {
      expect(await ours(path)).toEqual(await theirs(path));
    }
    const ec2: Json = JSON.parse(await fileOf(server, '/config-drive/ec2/2009-04-04/meta-data.json'));
    for (const key of [
      'instance-id',
      'ami-id',
      'hostname',
      'local-ipv4',
      'instance-type',
      'reservation-id',
      'security-groups',
    ]) {
      expect([key, String(ec2[key])]).toEqual([key, await told(server, tenant, `/2009-04-04/meta-data/${key}`)]);
    }
    const mapping = '/2009-04-04/meta-data/block-device-mapping/';
    const names = (await told(server, tenant, mapping)).split('\n');
    expect(Object.keys(ec2['block-device-mapping']).toSorted()).toEqual(names.toSorted());
  });

  it('is told of tagged interfaces that come later, as long as they are there', async () => {
    const { network } = await lab();
    const tenant = await tenantOf(server.id);
    const tags = async (): Promise<readonly string[]> => {
      const document = JSON.parse(await told(server, tenant, '/openstack/latest/meta_data.json')) as Json;
      return document['devices'].flatMap((device: Json) => device['tags']);
    };
    const path = `/servers/${server.id}/os-interface`;
    const wish = { interfaceAttachment: { net_id: network, tag: 'later' } };

    const made = await cloud.post<{ interfaceAttachment: { port_id: string } }>(cloud.compute, path, wish);
    // the service remembers for fifteen seconds what it was told
    await poll(async () => ((await tags()).includes('later') ? true : undefined), 1000, AbortSignal.timeout(30_000));
    await cloud.delete(cloud.compute, `${path}/${made.interfaceAttachment.port_id}`);
    await poll(async () => ((await tags()).includes('later') ? undefined : true), 1000, AbortSignal.timeout(30_000));

    expect(await tags()).toEqual(['first', 'root']);
  });

  it('finds the same on a disk, by its label, as root alone', async () => {
    const inside = async (...argv: [string, ...string[]]) => await execIn(engine, nameOf(server), argv);

    expect((await inside('dd', 'if=/dev/sr0', 'bs=1', 'skip=32808', 'count=8')).stdout).toBe('config-2');
    expect((await inside('grep', '-q', server.id, '/dev/sr0')).code).toBe(0);
    expect((await inside('stat', '-c', '%a %u %g', '/dev/sr0')).stdout.trim()).toBe('400 0 0');
    expect((await inside('dd', 'if=/dev/zero', 'of=/dev/sr0', 'bs=512', 'count=1')).code).not.toBe(0);
  });

  it('cannot write there, and nobody but root can read there', async () => {
    const sh = async (command: string) => (await execIn(engine, nameOf(server), ['sh', '-c', command])).code;

    expect(await sh('echo x > /config-drive/x')).not.toBe(0);
    expect(await sh('mount -o remount,rw /config-drive && echo x > /config-drive/x')).not.toBe(0);
    const looked = 'stat -c "%a %u %g" /config-drive /config-drive/openstack/latest/meta_data.json';
    expect((await execIn(engine, nameOf(server), ['sh', '-c', looked])).stdout).toBe('500 0 0\n400 0 0\n');
  });

  it('has it as it was after a reboot and in another size', async () => {
    const drive = async () => fileOf(server, '/config-drive/openstack/latest/meta_data.json');
    const was = await drive();

    await cloud.action(server.id, { reboot: { type: 'HARD' } });
    await waitForStatus(cloud, server.id, 'ACTIVE');
    expect(await drive()).toBe(was);
    await cloud.action(server.id, { resize: { flavorRef: '2' } });
    await waitForStatus(cloud, server.id, 'VERIFY_RESIZE');
    expect(await drive()).toBe(was);
    await cloud.action(server.id, { confirmResize: null });
    await waitForStatus(cloud, server.id, 'ACTIVE');

    expect(await readdir(DRIVES)).toEqual([server.id]);
  });

  it('has another one when it is rebuilt from another image, with the new password', async () => {
    const scratch = await mkdtemp(join(tmpdir(), 'guest-data-'));
    await makeBusyboxImage(join(scratch, 'other.tar.gz'), { label: 'other' });
    const imageRef = await uploadImage(cloud, `other-${KEY_NAME}`, join(scratch, 'other.tar.gz'));
    await rm(scratch, { recursive: true });
    try {
      await cloud.action(server.id, {
        rebuild: { imageRef, adminPass: 'second-secret', metadata: { purpose: 'anew' } },
      });
      server = (await waitForStatus(cloud, server.id, 'ACTIVE')) ?? server;

      const anew: Json = JSON.parse(await fileOf(server, '/config-drive/openstack/latest/meta_data.json'));
      const { admin_pass: _pass, meta: _meta, files: _files, random_seed: seed, ...same } = metadata;
      expect(anew).toMatchObject({ ...same, admin_pass: 'second-secret', meta: { purpose: 'anew' } });
      expect(anew['random_seed']).not.toBe(seed);
      expect(anew).not.toHaveProperty('files');
      await waitForPing(addressOf(server) ?? '', (await lab()).network);
    } finally {
      await cloud.delete(cloud.image, `/v2/images/${imageRef}`);
    }
  });

  it('takes it along when it goes', async () => {
    await deleteServer(server.id);

    expect(await readdir(DRIVES)).toEqual([]);
  });
});

describe('a server without a config drive', () => {
  it('has its files in its root, and cloud-init’s data in the engine', async () => {
    const personality = [{ path: '/opt/lab/told', contents: base64('hello') }];
    const server = await create({ personality });

    const { config, devices } = await engine.instances.get(nameOf(server));
    expect(await fileOf(server, '/opt/lab/told')).toBe('hello');
    expect(devices).not.toHaveProperty('config-drive');
    expect(config['user.user-data']).toBe(USER_DATA);
    expect(parseYaml(config['user.meta-data'] ?? '')).toEqual({
      'instance-id': server.id,
      'local-hostname': 'guest-data.novalocal',
      'public-keys': [publicKey],
    });
    expect(parseYaml(config['user.network-config'] ?? '')).toMatchObject({
      version: 1,
      config: [{ type: 'physical', name: 'eth0', subnets: [{ type: 'dhcp4' }] }],
    });
    await deleteServer(server.id);
  });
});

describe('a server in a network without DHCP', () => {
  it('is told its address, routes and name servers', async () => {
    const network = { name: KEY_NAME };
    const { network: made } = await cloud.post<{ network: { id: string } }>(cloud.network, '/v2.0/networks', {
      network,
    });
    const subnet = {
      network_id: made.id,
      ip_version: 4,
      cidr: '10.99.0.0/20',
      enable_dhcp: false,
      dns_nameservers: ['10.99.0.53'],
      host_routes: [{ destination: '192.168.0.0/16', nexthop: '10.99.0.9' }],
    };
    await cloud.post(cloud.network, '/v2.0/subnets', { subnet });
    try {
      const server = await create({ config_drive: true }, [{ uuid: made.id }]);

      const data: Json = JSON.parse(await fileOf(server, '/config-drive/openstack/latest/network_data.json'));
      expect(data['networks']).toMatchObject([
        {
          type: 'ipv4',
          ip_address: addressOf(server),
          netmask: '255.255.240.0',
          routes: [
            { network: '0.0.0.0', netmask: '0.0.0.0', gateway: '10.99.0.1' },
            { network: '192.168.0.0', netmask: '255.255.0.0', gateway: '10.99.0.9' },
          ],
        },
      ]);
      const theirs = await told(server, await tenantOf(server.id), '/openstack/latest/network_data.json');
      expect(data).toEqual(JSON.parse(theirs));
      const { config } = await engine.instances.get(nameOf(server));
      expect(parseYaml(config['user.network-config'] ?? '')).toMatchObject({
        config: [
          { name: 'eth0', subnets: [{ type: 'static', address: addressOf(server), netmask: '255.255.240.0' }] },
          { type: 'nameserver', address: '10.99.0.53' },
        ],
      });
      await deleteServer(server.id);
    } finally {
      await cloud.delete(cloud.network, `/v2.0/networks/${made.id}`);
    }
  });
});

afterAll(async () => {
  await cloud.delete(cloud.compute, `/os-keypairs/${KEY_NAME}`);
  engine[Symbol.dispose]();
  await expectNothingLeft(before, 30_000);
});
