// Vendor data: the operator's file, and the services that he runs.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { vendorData } from '#src/compute/guest/vendor-data.ts';
import { createObject } from '#src/nova/objects/object.ts';
import { RecordingLog, testConfig } from '#test/fakes/compute-harness.ts';
import { HttpService, tokenAnswer } from '#test/fakes/http-service.ts';

const INSTANCE = createObject('Instance', {
  uuid: '11111111-1111-4111-8111-111111111111',
  project_id: 'project',
  image_ref: 'image',
  user_data: 'aGk=',
  hostname: 'web',
  metadata: { a: 'b' },
  system_metadata: { boot_roles: 'member,reader' },
});

let service: HttpService;
let folder: string;
let log: RecordingLog;

beforeEach(async () => {
  service = await HttpService.start();
  folder = await mkdtemp(join(tmpdir(), 'vendor-'));
  log = new RecordingLog();
});

afterEach(async () => {
  await service[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

function ask(api: string, { isWhole = true, auth = '' } = {}) {
  const { vendorData: options } = testConfig(`[api]\n${api}\n[vendordata_dynamic_auth]\n${auth}\n`).metadata;
  return vendorData({ options, log, signal: AbortSignal.timeout(5000) }, INSTANCE, isWhole);
}

const targets = (...names: readonly string[]) =>
  `vendordata_providers = StaticJSON,DynamicJSON\nvendordata_dynamic_targets = ${names.map((name) => `${name}@${service.url}/${name}`).join(',')}`;

describe('the file', () => {
  it('is told in both documents', async () => {
    await writeFile(join(folder, 'v.json'), '{"x": [1]}');

    expect(await ask(`vendordata_jsonfile_path = ${folder}/v.json`)).toEqual({
      static: { x: [1] },
      all: { static: { x: [1] } },
    });
  });

  it('that there is not is nothing; one that is no JSON fails', async () => {
    await writeFile(join(folder, 'v.json'), '{');

    expect(await ask('')).toEqual({ static: {}, all: { static: {} } });
    expect(await ask('vendordata_providers =')).toEqual({ static: null, all: {} });
    await expect(ask(`vendordata_jsonfile_path = ${folder}/v.json`)).rejects.toMatchObject({ kind: 'internal' });
  });
});

describe('services', () => {
  it('are asked with the facts of the instance, in the name of their user', async () => {
    service.on(/POST \/v3\/auth\/tokens/, tokenAnswer('the-token', {}));
    service.on(/POST \/join/, { body: { otp: 1 } });
    const auth = `auth_type = password\nauth_url = ${service.url}/v3\nusername = u\npassword = p\nproject_name = service`;

    const { all } = await ask(targets('join'), { auth });

    expect(all).toEqual({ static: {}, join: { otp: 1 } });
    const asked = service.requests.find(({ path }) => path === '/join');
    expect(asked?.headers['x-auth-token']).toBe('the-token');
    expect(asked?.body).toEqual({
      'project-id': 'project',
      'instance-id': '11111111-1111-4111-8111-111111111111',
      'image-id': 'image',
      'user-data': 'aGk=',
      hostname: 'web',
      metadata: { a: 'b' },
      'boot-roles': 'member,reader',
    });
  });

  it('that fail tell nothing, and keep nobody from telling', async () => {
    service
      .on(/POST \/bad/, { status: 500 })
      .on(/POST \/gone/, { hangUp: true })
      .on(/POST \/good/, { body: { a: 1 } });

    expect((await ask(targets('bad', 'gone', 'good'))).all).toEqual({ static: {}, bad: {}, gone: {}, good: { a: 1 } });
    expect(log.lines.filter(({ level }) => level === 'warn')).toHaveLength(2);
  });

  it('that fail fail the build where the operator wants it', async () => {
    service.on(/POST \/bad/, { status: 500 });

    const failure = ask(`${targets('bad')}\nvendordata_dynamic_failure_fatal = true`);

    await expect(failure).rejects.toMatchObject({
      kind: 'unavailable',
      message: expect.stringContaining('bad') as string,
    });
  });

  it('are not asked for what nobody is given, nor when they are no provider', async () => {
    await ask(targets('join'), { isWhole: false });
    await ask(targets('join').replace('StaticJSON,DynamicJSON', 'StaticJSON'));

    expect(service.requests).toEqual([]);
  });

  it('need a name and an address', async () => {
    const text = 'vendordata_dynamic_targets = http://no-name';

    expect(() => testConfig(`[api]\n${text}\n`)).not.toThrow();
    expect(testConfig(`[api]\n${text}\n`).metadata.vendorData.targets).toEqual([]);
  });
});
