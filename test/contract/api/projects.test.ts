// /1.0/projects: name spaces, and what is shared between them (lxd-engine-contract sections 1.2, 3.6).
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Caller } from '#src/api/app.ts';
import { startTestEngine, type TestEngine } from '../../fakes/test-engine.ts';

let test: TestEngine;
beforeEach(async () => {
  test = await startTestEngine();
});
afterEach(() => test[Symbol.asyncDispose]());

type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

async function call(method: Method, url: string, payload?: object, headers = {}) {
  const response = await test.app.inject({ method, url, headers, ...(payload && { payload }) });
  // oxlint-disable-next-line typescript/no-explicit-any -- tests look into it as clients do
  const body = response.json<any>();
  return { status: response.statusCode, error: String(body.error), metadata: body.metadata, headers: response.headers };
}

const make = (name: string, config: object = {}) => call('POST', '/1.0/projects', { name, config });

async function rename(from: string, to: string): Promise<string> {
  const { status, metadata } = await call('POST', `/1.0/projects/${from}`, { name: to });
  if (status !== 202) return `status ${status}`;
  return (await call('GET', `/1.0/operations/${metadata.id}/wait?timeout=5`)).metadata.err;
}

it('that are restricted see the networks that their instances may use, and no other', async () => {
  const { networks } = test.engine.context.database;
  networks.create({ project: 'default', name: 'br0', description: '', config: {}, type: 'bridge', pending: '' });
  await make('foo', { restricted: 'true' });
  const seen = async (config: object) => {
    await call('PATCH', '/1.0/projects/foo', { config });
    const { metadata: urls } = await call('GET', '/1.0/networks?project=foo');
    const single = async (name: string) => (await call('GET', `/1.0/networks/${name}?project=foo`)).status;
    const named = ['/1.0/networks/br0', '/1.0/networks/lo'].map((url) => urls.includes(url));
    return [...named, await single('br0'), await single('lo')];
  };

  expect(await seen({ 'restricted.devices.nic': 'block' })).toEqual([false, false, 404, 404]);
  expect(await seen({ 'restricted.devices.nic': 'managed' })).toEqual([true, false, 200, 404]);
  expect(await seen({ 'restricted.devices.nic': 'allow' })).toEqual([true, true, 200, 200]);
  expect(await seen({ 'restricted.networks.access': 'other' })).toEqual([false, false, 404, 404]);
  for (const what of ['state', 'leases', 'forwards']) {
    expect(await call('GET', `/1.0/networks/br0/${what}?project=foo`)).toMatchObject({ status: 404 });
  }
  expect((await call('DELETE', '/1.0/networks/br0?project=foo')).status).toBe(404);
  expect((await call('POST', '/1.0/networks?project=foo', { name: 'br1' })).status).toBe(403);
  expect(await seen({ restricted: 'false', 'restricted.devices.nic': 'block' })).toEqual([true, true, 200, 200]);
});

it('are named by the server as they were asked with', async () => {
  const named = async (url: string): Promise<unknown> => (await call('GET', url)).metadata.environment.project;

  expect(await named('/1.0')).toBe('default');
  expect(await named('/1.0?project=foo')).toBe('foo');
});

describe('projects', () => {
  it('are made with their own images, profiles and volumes, and a default profile', async () => {
    const made = await make('foo');

    expect(made).toMatchObject({ status: 201, headers: { location: '/1.0/projects/foo' } });
    expect((await call('GET', '/1.0/projects/foo')).metadata).toEqual({
      name: 'foo',
      description: '',
      config: { 'features.images': 'true', 'features.profiles': 'true', 'features.storage.volumes': 'true' },
      used_by: ['/1.0/profiles/default?project=foo'],
    });
    const { metadata: profile } = await call('GET', '/1.0/profiles/default?project=foo');
    expect(profile.description).toBe('Default LXD profile for project foo');
  });

  it('are listed together where that is asked for', async () => {
    await make('foo');
    await call('POST', '/1.0/profiles?project=foo', { name: 'own' });

    const urls = (await call('GET', '/1.0/profiles?all-projects=true')).metadata;
    const views = (await call('GET', '/1.0/profiles?all-projects=true&recursion=1&filter=name+eq+own')).metadata;
    const named = await call('GET', '/1.0/profiles?all-projects=true&project=foo');

    expect(urls).toEqual([
      '/1.0/profiles/default',
      '/1.0/profiles/default?project=foo',
      '/1.0/profiles/own?project=foo',
    ]);
    expect(views).toMatchObject([{ name: 'own', project: 'foo' }]);
    expect((await call('GET', '/1.0/images?all-projects=true')).metadata).toEqual([]);
    expect(named).toMatchObject({ status: 400, error: 'Cannot specify a project when requesting all projects' });
  });

  it('refuse names and keys in the words of LXD', async () => {
    await make('foo');

    for (const [name, error] of [
      ['', 'No name provided'],
      ['a/b', 'Project names may not contain slashes'],
      ['a b', 'Project names may not contain spaces'],
      ['foo_banned', 'Project names may not contain underscores'],
      ['*', 'Reserved project name'],
    ]) {
      expect(await make(name ?? '')).toMatchObject({ status: 400, error });
    }
    expect(await make('foo')).toMatchObject({
      status: 500,
      error: 'Failed creating project "foo": Failed adding database record: This "projects" entry already exists',
    });
    expect(await call('PATCH', '/1.0/projects/foo', { config: { garbage: 'xxx' } })).toMatchObject({
      status: 400,
      error: 'Invalid project configuration key "garbage"',
    });
    expect((await call('PATCH', '/1.0/projects/foo', { config: { 'limits.containers': 'xxx' } })).status).toBe(400);
    expect((await make('bar', { restricted: 'true', 'features.profiles': 'false' })).error).toBe(
      'Projects without their own profiles cannot be restricted',
    );
  });

  it('are renamed and deleted while they are empty, the default one never', async () => {
    await make('foo');
    await make('bar');
    await call('POST', '/1.0/profiles?project=bar', { name: 'p' });

    expect(await rename('foo', 'bar')).toBe('A project named "bar" already exists');
    expect(await rename('foo', 'bar_banned')).toBe('Project names may not contain underscores');
    expect(await rename('bar', 'baz')).toBe('Only empty projects can be renamed');
    expect(await rename('foo', 'baz')).toBe('');
    expect(await rename('default', 'x')).toBe('status 403');
    expect(await call('DELETE', '/1.0/projects/bar')).toMatchObject({
      status: 400,
      error: 'Only empty projects can be removed',
    });
    expect((await call('DELETE', '/1.0/projects/default')).status).toBe(403);
    expect((await call('DELETE', '/1.0/projects/baz')).status).toBe(200);
    expect((await call('GET', '/1.0/projects')).metadata).toEqual(['/1.0/projects/bar', '/1.0/projects/default']);
  });

  it('share the profiles of the default project when they have none of their own', async () => {
    await make('foo', { 'features.profiles': 'false' });

    await call('POST', '/1.0/profiles?project=foo', { name: 'shared' });

    expect((await call('GET', '/1.0/profiles')).metadata).toContain('/1.0/profiles/shared');
    expect((await call('GET', '/1.0/profiles/default?project=foo')).metadata.description).toBe('Default LXD profile');
    await call('PATCH', '/1.0/projects/foo', { config: { 'features.profiles': 'true' } });
    expect((await call('GET', '/1.0/profiles/default?project=foo')).metadata.description).toBe(
      'Default LXD profile for project foo',
    );
    await call('PATCH', '/1.0/projects/foo', { config: { 'features.profiles': 'false' } });
    expect((await call('GET', '/1.0/projects/foo')).metadata.used_by).toEqual([]);
  });

  it('keep their features while they are in use', async () => {
    await make('foo');
    await call('POST', '/1.0/profiles?project=foo', { name: 'p' });
    const off = { config: { 'features.profiles': 'false' } };

    expect(await call('PATCH', '/1.0/projects/foo', off)).toMatchObject({
      status: 400,
      error: 'Project feature "features.profiles" cannot be disabled on non-empty projects',
    });
    expect((await call('PATCH', '/1.0/projects/default', off)).error).toBe(
      "You can't change the features of the default project",
    );
  });

  it('are replaced by PUT, merged by PATCH, and guarded by ETags', async () => {
    await make('foo', { 'user.a': '1' });
    const etag = String((await call('GET', '/1.0/projects/foo')).headers['etag']);

    await call('PATCH', '/1.0/projects/foo', { config: { 'user.b': '2' } });
    const stale = await call('PUT', '/1.0/projects/foo', { description: 'x' }, { 'if-match': etag });
    const { metadata: merged } = await call('GET', '/1.0/projects/foo');
    const features = { 'features.images': 'true', 'features.profiles': 'true', 'features.storage.volumes': 'true' };
    await call('PUT', '/1.0/projects/foo', { description: 'x', config: features });

    expect(stale.status).toBe(412);
    expect(merged.config).toMatchObject({ 'user.a': '1', 'user.b': '2' });
    expect((await call('GET', '/1.0/projects/foo')).metadata).toMatchObject({ description: 'x', config: features });
  });

  it('say what they may take and take', async () => {
    await make('foo', { 'limits.cpu': '5', 'limits.memory': '1GiB' });

    const { metadata } = await call('GET', '/1.0/projects/foo/state');

    expect(metadata.resources).toMatchObject({
      cpu: { Limit: 5, Usage: 0 },
      memory: { Limit: 2 ** 30, Usage: 0 },
      instances: { Limit: -1, Usage: 0 },
      networks: { Limit: -1, Usage: 0 },
    });
  });

  it('that do not exist are refused where LXD refuses them', async () => {
    expect(await call('GET', '/1.0/profiles?project=nope')).toMatchObject({
      status: 404,
      error: 'Failed loading project "nope": Project not found',
    });
    expect(await call('GET', '/1.0/projects/nope')).toMatchObject({ status: 404, error: 'Project not found' });
  });

  it('restrict profiles', async () => {
    await make('foo', { restricted: 'true' });
    const profile = (content: object) => call('POST', '/1.0/profiles?project=foo', { name: 'p', ...content });

    expect((await profile({ config: { 'security.nesting': 'true' } })).error).toContain(
      'Container nesting is forbidden',
    );
    expect((await profile({ config: { 'raw.lxc': 'x' } })).error).toContain('Use of low-level config "raw.lxc"');
    expect((await profile({ devices: { e: { type: 'nic', nictype: 'p2p' } } })).error).toContain(
      'Only managed network devices are allowed',
    );
    const disk = { type: 'disk', source: '/etc', path: '/x' };
    expect((await profile({ devices: { d: disk } })).error).toContain(
      'Attaching disks not backed by a pool is forbidden',
    );
    await call('PATCH', '/1.0/projects/foo', {
      config: { 'restricted.devices.disk': 'allow', 'restricted.devices.disk.paths': '/srv' },
    });
    expect((await profile({ devices: { d: disk } })).error).toContain('Disk source path "/etc" not allowed');
    const tricky = { ...disk, source: '/srv/../etc' };
    expect((await profile({ devices: { d: tricky } })).error).toContain('not allowed');
    expect((await profile({ devices: { d: { ...disk, source: '/srv/data' } } })).status).toBe(201);
    const conflict = await call('PATCH', '/1.0/projects/foo', { config: { 'restricted.devices.disk': 'block' } });
    expect(conflict.error).toContain('Conflict detected when changing "restricted.devices.disk" in project "foo"');
  });
});

describe('a restricted client', () => {
  it('sees its projects alone and follows their renaming', async () => {
    await make('foo');
    await make('bar');
    const { database } = test.engine.context;
    const certificate = {
      fingerprint: 'f00',
      type: 'client',
      name: 'x',
      certificate: 'pem',
      restricted: true,
    } as const;
    database.certificates.create({ ...certificate, projects: ['foo', 'bar'] });

    await rename('foo', 'baz');
    await call('DELETE', '/1.0/projects/bar');

    expect(database.certificates.find('f00')?.projects).toEqual(['baz']);
    const requestor = { username: 'f00', protocol: 'tls', address: '10.0.0.1:1' } as const;
    const caller: Caller = { requestor, trusted: true, projects: new Set(['baz']) };
    await using other = await startTestEngine({ caller });
    other.engine.projects.create('baz', { description: '', config: {} });
    const list = await other.app.inject('/1.0/projects');
    expect(list.json<{ metadata: unknown }>().metadata).toEqual(['/1.0/projects/baz']);
    expect((await other.app.inject('/1.0/projects/default')).statusCode).toBe(403);
    const create = await other.app.inject({ method: 'POST', url: '/1.0/projects', payload: { name: 'x' } });
    expect(create.statusCode).toBe(403);
  });
});
