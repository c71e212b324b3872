// Placement, Neutron and Glance clients against a scripted service.
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { describe, expect, it } from 'vitest';
import { KeystoneSession } from 'keystone-client-ts';
import { createCinder } from '#src/openstack/cinder.ts';
import { createGlance } from '#src/openstack/glance.ts';
import { createNeutron } from '#src/openstack/neutron.ts';
import { createPlacement } from '#src/openstack/placement.ts';
import { HttpService, tokenAnswer } from '#test/fakes/http-service.ts';

const authOf = (url: string) =>
  ({ type: 'password', authUrl: url, user: { name: 'nova' }, password: 'x', project: { name: 'service' } }) as const;
const asService = { kind: 'service', requestId: 'req-1' } as const;
const asUser = { kind: 'user', token: 'users-token', requestId: 'req-2' } as const;

async function cloud(): Promise<HttpService> {
  const service = await HttpService.start();
  const { url } = service;
  return service.on(/auth\/tokens/, tokenAnswer('svc', { placement: `${url}/placement`, network: url, image: url }));
}

describe('placement', () => {
  it('puts inventories with the generation and the microversion of nova', async () => {
    await using service = await cloud();
    service.on(/PUT .*inventories/, { body: { resource_provider_generation: 8 } });
    const placement = createPlacement({ settings: { auth: authOf(service.url) } });
    const vcpu = { total: 4, reserved: 0, minUnit: 1, maxUnit: 4, stepSize: 1, allocationRatio: 16 };

    const generation = await placement.putInventories('rp1', 7, { VCPU: vcpu });

    expect(generation).toBe(8);
    const request = service.requests.at(-1);
    expect(request?.path).toBe('/placement/resource_providers/rp1/inventories');
    expect(request?.headers['openstack-api-version']).toBe('placement 1.26');
    expect(request?.body).toEqual({
      resource_provider_generation: 7,
      inventories: { VCPU: { total: 4, reserved: 0, min_unit: 1, max_unit: 4, step_size: 1, allocation_ratio: 16 } },
    });
  });

  it('deletes allocations and says whether there were any', async () => {
    await using service = await cloud();
    service.on(/DELETE .*allocations\/c1/, { status: 204 }).on(/DELETE .*allocations\/c2/, { status: 404 });
    const placement = createPlacement({ settings: { auth: authOf(service.url) } });

    expect(await placement.deleteAllocations('c1')).toBe(true);
    expect(await placement.deleteAllocations('c2')).toBe(false);
  });

  it('moves allocations from one consumer to another in one request', async () => {
    await using service = await cloud();
    service
      .on(/GET .*allocations\/from/, {
        body: {
          allocations: { rp1: { resources: { VCPU: 1 }, generation: 3 } },
          project_id: 'p',
          user_id: 'u',
          consumer_generation: 2,
        },
      })
      .on(/GET .*allocations\/to/, { body: { allocations: {} } })
      .on(/POST .*allocations/, { status: 204 });
    const placement = createPlacement({ settings: { auth: authOf(service.url) } });

    await placement.moveAllocations('from', 'to');

    expect(service.requests.at(-1)?.body).toEqual({
      from: { allocations: {}, project_id: 'p', user_id: 'u', consumer_generation: 2 },
      to: {
        allocations: { rp1: { resources: { VCPU: 1 } } },
        project_id: 'p',
        user_id: 'u',
        consumer_generation: null,
      },
    });
  });
});

describe('neutron', () => {
  it("acts with the user's token, or with the service user's", async () => {
    await using service = await cloud();
    service.on(/GET .*ports/, { body: { ports: [] } });
    const neutron = createNeutron({ settings: { auth: authOf(service.url) } });

    await neutron.listPorts(asUser, { device_id: 'i1' });
    await neutron.listPorts(asService, { device_id: 'i1' });

    const tokens = service.requests
      .filter(({ method }) => method === 'GET')
      .map(({ headers }) => headers['x-auth-token']);
    expect(tokens).toEqual(['users-token', 'svc']);
  });

  it('believes the list of extensions for a while', async () => {
    await using service = await cloud();
    service.on(/GET .*extensions/, { body: { extensions: [{ alias: 'binding' }, { alias: 'dns-integration' }] } });
    const neutron = createNeutron({ settings: { auth: authOf(service.url) } });

    await neutron.extensions(asService);
    const aliases = await neutron.extensions(asService);

    expect([...aliases]).toEqual(['binding', 'dns-integration']);
    expect(service.requests.filter(({ path }) => path.endsWith('extensions'))).toHaveLength(1);
  });
});

describe('glance', () => {
  it('deletes an image, and one that is gone already', async () => {
    await using service = await cloud();
    service.on(/DELETE .*images\/i1/, { status: 204 }).on(/DELETE .*images\/i2/, { status: 404 });
    service.on(/DELETE .*images\/i3/, { status: 403 });
    const glance = createGlance({ settings: { auth: authOf(service.url) } });

    await glance.deleteImage(asUser, 'i1');
    await glance.deleteImage(asUser, 'i2');

    await expect(glance.deleteImage(asUser, 'i3')).rejects.toMatchObject({ kind: 'forbidden' });
    expect(service.requests.filter(({ method }) => method === 'DELETE').map(({ path }) => path)).toEqual([
      '/v2/images/i1',
      '/v2/images/i2',
      '/v2/images/i3',
    ]);
  });

  const content = Buffer.from('root file system');
  const imageBody = (changes: Readonly<Record<string, unknown>> = {}) => ({
    id: 'im1',
    name: 'debian',
    status: 'active',
    size: content.length,
    disk_format: 'raw',
    container_format: 'bare',
    min_disk: 1,
    min_ram: 0,
    os_hash_algo: 'sha512',
    os_hash_value: createHash('sha512').update(content).digest('hex'),
    hw_architecture: 'x86_64',
    ...changes,
  });

  async function download(changes: Readonly<Record<string, unknown>>, body: Buffer | undefined): Promise<Buffer> {
    await using service = await cloud();
    service
      .on(/GET .*images\/im1$/, { body: imageBody(changes) })
      .on(/GET .*im1\/file/, body === undefined ? { status: 204 } : { body });
    const glance = createGlance({ settings: { endpointOverride: service.url } });
    const image = await glance.getImage(asUser, 'im1');
    return await buffer(await glance.download(asUser, image));
  }

  it('changes of an image only what differs, in the form that Glance wants', async () => {
    await using service = await cloud();
    service
      .on(/GET .*im1$/, { body: imageBody({ disk_format: null, owner_id: 'me' }) })
      .on(/PATCH .*im1/, { body: {} });
    const glance = createGlance({ settings: { auth: authOf(service.url) } });
    const image = await glance.getImage(asUser, 'im1');
    const changes = { diskFormat: 'raw', containerFormat: 'bare', properties: { owner_id: 'me', 'a/b~c': 'x' } };

    await glance.updateImage(asUser, image, changes);
    await glance.updateImage(asUser, image, { containerFormat: 'bare', properties: { owner_id: 'me' } });

    const patches = service.requests.filter(({ method }) => method === 'PATCH');
    expect(patches).toHaveLength(1);
    expect(patches[0]?.headers['content-type']).toBe('application/openstack-images-v2.1-json-patch');
    expect(patches[0]?.body).toEqual([
      { op: 'add', path: '/a~1b~0c', value: 'x' },
      { op: 'replace', path: '/disk_format', value: 'raw' },
    ]);
  });

  it('lists images by properties, newest first, page after page', async () => {
    await using service = await cloud();
    service.on(
      /GET .*images\?/,
      { body: { images: [imageBody()], next: '/v2/images?marker=im1' } },
      { body: { images: [imageBody({ id: 'im2' })] } },
    );
    const glance = createGlance({ settings: { auth: authOf(service.url) } });

    const images = await glance.listImages(asUser, { image_type: 'backup' });

    expect(images.map(({ id }) => id)).toEqual(['im1', 'im2']);
    const page = '/v2/images?image_type=backup&limit=200&sort_key=created_at&sort_dir=desc';
    const asked = service.requests.filter(({ method }) => method === 'GET').map(({ path }) => path);
    expect(asked).toEqual([page, `${page}&marker=im1`]);
  });

  it('streams the content of an image, and never sends half of it a second time', async () => {
    await using service = await cloud();
    service.on(/PUT .*im1\/file/, { status: 204 }).on(/PUT .*im2\/file/, { status: 503 }, { status: 204 });
    const glance = createGlance({ settings: { auth: authOf(service.url) } });

    await glance.upload(asUser, 'im1', Readable.from([Buffer.from('"bytes"')]));
    await expect(glance.upload(asUser, 'im2', Readable.from([Buffer.from('"bytes"')]))).rejects.toMatchObject({
      kind: 'unavailable',
    });

    const puts = service.requests.filter(({ method }) => method === 'PUT');
    expect(puts.map(({ path }) => path)).toEqual(['/v2/images/im1/file', '/v2/images/im2/file']);
    expect(puts[0]).toMatchObject({ body: 'bytes', headers: { 'transfer-encoding': 'chunked' } });
  });

  it('tells of the content when that is what failed', async () => {
    await using service = await cloud();
    service.on(/PUT .*im1\/file/, { status: 204 });
    const glance = createGlance({ settings: { auth: authOf(service.url) } });
    const content = new Readable({ read: () => content.destroy(new Error('the engine went away')) });

    await expect(glance.upload(asUser, 'im1', content)).rejects.toThrow('the engine went away');
  });

  it('streams an image whose checksum is right', async () => {
    expect(await download({}, content)).toEqual(content);
  });

  it.each([
    ['a wrong checksum', { os_hash_value: '0'.repeat(128) }, content, 'sha512'],
    ['a wrong md5 where there is nothing else', { os_hash_algo: null, checksum: '0'.repeat(32) }, content, 'md5'],
    ['missing bytes', {}, content.subarray(1), 'bytes'],
    ['no data at all', {}, undefined, 'no data'],
  ])('fails on %s', async (_what, changes, body, message) => {
    await expect(download(changes, body)).rejects.toMatchObject({
      kind: 'invalid',
      message: expect.stringContaining(message),
    });
  });
});

describe('cinder', () => {
  const settings = (url: string) => ({ auth: authOf(url), serviceType: 'volumev3' });
  const withVolumes = async () => {
    const service = await HttpService.start();
    return service.on(/auth\/tokens/, tokenAnswer('svc', { volumev3: `${service.url}/v3/p1` }));
  };

  it("updates an attachment as the user, with the service's token and nova's microversion, and again when it hiccups", async () => {
    await using service = await withVolumes();
    const info = { driver_volume_type: 'nfs', export: 'server:/share' };
    const good = { body: { attachment: { id: 'a1', connection_info: info } } };
    service.on(/PUT .*attachments\/a1$/, { status: 500 }, { status: 504 }, good);
    const serviceTokens = new KeystoneSession({ auth: authOf(service.url) });
    const cinder = createCinder({ settings: settings(service.url), serviceTokens });

    const attachment = await cinder.updateAttachment(asUser, 'a1', { host: 'node1' });

    expect(attachment).toEqual({ id: 'a1', connectionInfo: info });
    const asked = service.requests.filter(({ method }) => method === 'PUT');
    expect(asked).toHaveLength(3);
    expect(asked[2]?.path).toBe('/v3/p1/attachments/a1');
    expect(asked[2]?.body).toEqual({ attachment: { connector: { host: 'node1' } } });
    expect(asked[2]?.headers).toMatchObject({
      'openstack-api-version': 'volume 3.44',
      'x-auth-token': 'users-token',
      'x-service-token': 'svc',
    });
  });

  it('does not give up five times', async () => {
    await using service = await withVolumes();
    service.on(/DELETE .*attachments/, { status: 500 });
    const cinder = createCinder({ settings: settings(service.url) });

    await expect(cinder.deleteAttachment(asService, 'a1')).rejects.toMatchObject({ status: 500 });

    expect(service.requests.filter(({ method }) => method === 'DELETE')).toHaveLength(5);
  });

  it('takes what is gone for deleted, but not for gone where Cinder itself is nowhere', async () => {
    await using service = await withVolumes();
    service.on(/DELETE .*attachments/, { status: 404 });
    const cinder = createCinder({ settings: settings(service.url) });
    const nowhere = createCinder({ settings: { auth: authOf(service.url), serviceType: 'volumev4' } });

    await cinder.deleteAttachment(asService, 'a1');
    await expect(nowhere.deleteAttachment(asService, 'a1')).rejects.toMatchObject({ code: 'EndpointNotFound' });
  });

  it('makes volumes and attachments with the bodies that Cinder knows', async () => {
    await using service = await withVolumes();
    const volume = { id: 'v1', status: 'creating', size: 3, multiattach: true, encrypted: false };
    service.on(/POST .*volumes$/, { status: 202, body: { volume } });
    service.on(/POST .*attachments$/, { body: { attachment: { id: 'a1' } } });
    service.on(/POST .*action$/, { status: 202 });
    const cinder = createCinder({ settings: settings(service.url) });

    const nothing = { snapshotId: null, volumeType: null, availabilityZone: null };
    const wanted = { ...nothing, sizeGib: 3, name: 'n', description: '', imageId: 'i1' };
    const made = await cinder.createVolume(asService, wanted);
    const attachment = await cinder.createAttachment(asService, { volumeId: 'v1', instanceUuid: 'u1' });
    await cinder.completeAttachment(asService, 'a1');
    await cinder.rollDetaching(asService, 'v1');

    expect(made).toMatchObject({ id: 'v1', status: 'creating', sizeGib: 3, multiattach: true, encrypted: false });
    expect(attachment).toBe('a1');
    expect(service.requests.slice(-4).map(({ path, body }) => [path, body])).toEqual([
      ['/v3/p1/volumes', { volume: expect.objectContaining({ size: 3, name: 'n', imageRef: 'i1' }) }],
      ['/v3/p1/attachments', { attachment: { volume_uuid: 'v1', instance_uuid: 'u1' } }],
      ['/v3/p1/attachments/a1/action', { 'os-complete': {} }],
      ['/v3/p1/volumes/v1/action', { 'os-roll_detaching': {} }],
    ]);
  });
});
