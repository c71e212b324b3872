// Profiles, storage pools, certificates and the server's configuration.
import { X509Certificate } from 'node:crypto';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { hashPassword, isPassword } from '#src/engine/certificates/certificates.ts';
import { loadServerCertificate } from '#src/engine/certificates/server-certificate.ts';
import { NEVER_USED } from '#src/engine/db/records.ts';
import { cpuSet } from '#src/engine/server/resources/cpu.ts';
import { parseAddress } from '#src/engine/server/address.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { startTestEngine, type TestEngine } from '../../fakes/test-engine.ts';

let test: TestEngine;
beforeEach(async () => {
  test = await startTestEngine({ firstPool: 'memory' });
});
afterEach(() => test[Symbol.asyncDispose]());

const soon = () => AbortSignal.timeout(5000);
const ROOT = { root: { type: 'disk', path: '/', pool: 'default' } };

function addInstance(name: string, { profiles = ['default'], pool = 'default', devices = {} } = {}) {
  return test.engine.context.database.instances.create({
    project: 'default',
    name,
    uuid: name,
    type: 'container',
    architecture: 'x86_64',
    ephemeral: false,
    stateful: false,
    description: '',
    config: {},
    devices,
    profiles,
    pool,
    createdAt: NEVER_USED,
    lastUsedAt: NEVER_USED,
  });
}

describe('profiles', () => {
  const update = (name: string, devices: Record<string, Record<string, string>>) => {
    const { profiles } = test.engine;
    return profiles.update(profiles.get('default', name), { description: '', config: {}, devices }, soon());
  };

  it('are applied to the instances that use them as soon as they change', async () => {
    addInstance('c1');

    await update('default', { ...ROOT, eth0: { type: 'none' } });

    expect(test.engine.instances.applied).toEqual(['default']);
  });

  it('keep no key without a value', async () => {
    const { profiles } = test.engine;
    const config = { 'user.a': 'x', 'user.b': '' };
    profiles.create('default', 'p', { description: '', config, devices: { eth0: { type: 'none', mtu: '' } } });
    expect(profiles.get('default', 'p')).toMatchObject({
      config: { 'user.a': 'x' },
      devices: { eth0: { type: 'none' } },
    });

    const content = { description: '', config: { 'user.a': '' }, devices: {} };
    await profiles.update(profiles.get('default', 'p'), content, soon());

    expect(profiles.get('default', 'p').config).toEqual({});
  });

  it('cannot go while an instance uses them', () => {
    test.engine.profiles.create('default', 'p', { description: '', config: {}, devices: {} });
    addInstance('c1', { profiles: ['default', 'p'] });

    expect(() => test.engine.profiles.delete('default', 'p')).toThrow('Profile is currently in use');
    expect(test.engine.profiles.usedBy({ project: 'default', name: 'p' })).toEqual(['/1.0/instances/c1']);
  });

  it.each([
    ['lose', {}],
    ['move', { root: { ...ROOT.root, pool: 'other' } }],
  ])('cannot %s the root disk that an instance lives on', async (_what, devices) => {
    addInstance('c1');

    await expect(update('default', devices)).rejects.toThrow("relies on this profile's root disk device: c1");

    expect(test.engine.profiles.get('default', 'default').devices).toEqual(ROOT);
    expect(test.engine.instances.applied).toEqual([]);
  });

  it('can lose a root disk that a later profile or the instance itself names', async () => {
    test.engine.profiles.create('default', 'later', { description: '', config: {}, devices: ROOT });
    addInstance('c1', { profiles: ['default', 'later'] });
    addInstance('c2', { devices: ROOT });

    await update('default', {});

    expect(test.engine.profiles.get('default', 'default').devices).toEqual({});
  });
});

describe('storage pools', () => {
  const create = (name: string) =>
    test.engine.pools.create({ name, driver: 'memory', description: '', config: {} }, soon());

  it('are made at the first start, and not again when the operator has deleted them', async () => {
    const { storage, root } = test;
    expect([...storage.pools]).toEqual(['default']);
    expect(test.engine.profiles.get('default', 'default').devices).toEqual(ROOT);
    test.engine.context.database.profiles.update(1, { description: '', config: {}, devices: {} });
    await test.engine.pools.delete('default', soon());
    await test.stop();

    await using again = await startTestEngine({ storage, root, firstPool: 'memory' });

    expect(again.engine.pools.list()).toEqual([]);
    expect([...storage.pools]).toEqual([]);
  });

  it('leave nothing when they cannot be made', async () => {
    test.storage.faults.set('createPool', new Error('no such device'));

    await expect(create('p2')).rejects.toThrow('no such device');

    expect(test.engine.pools.list().map(({ name }) => name)).toEqual(['default']);
    expect([...test.storage.pools]).toEqual(['default']);
  });

  it('stay while instances or profiles use them', async () => {
    await create('p2');
    addInstance('c1', { pool: 'p2' });

    await expect(test.engine.pools.delete('p2', soon())).rejects.toThrow('currently in use');
    await expect(test.engine.pools.delete('default', soon())).rejects.toThrow('currently in use');

    expect(await test.engine.pools.usedBy('p2', soon())).toEqual(['/1.0/instances/c1']);
  });

  it('that cannot be opened are a warning, and the others serve', async () => {
    await create('p2');
    const { storage, root } = test;
    storage.faults.set('openPool', new Error('device is gone'));
    await test.stop();

    await using again = await startTestEngine({ storage, root });

    expect(() => again.engine.pools.driver('p2')).toThrow('unavailable');
    expect(again.engine.context.database.warnings.list()[0]).toMatchObject({
      message: 'device is gone',
      status: 'new',
    });
  });

  it('keep where they lie', async () => {
    const pool = test.engine.pools.get('default');

    const moved = test.engine.pools.update(pool, { description: '', config: { source: '/elsewhere' } }, soon());

    await expect(moved).rejects.toThrow('Pool source cannot be changed');
  });
});

describe('the server certificate', () => {
  it('is made once, is valid, and its key is private', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'lighter-cert-'));
    const host = new LinuxHost();

    const made = await loadServerCertificate(host, directory, 'node-1');
    const again = await loadServerCertificate(host, directory, 'node-2');

    const certificate = new X509Certificate(made.certificate);
    expect(certificate.verify(certificate.publicKey)).toBe(true);
    expect(certificate.checkHost('node-1')).toBe('node-1');
    expect(certificate.checkIP('127.0.0.1')).toBe('127.0.0.1');
    expect(certificate.validToDate.getTime()).toBeGreaterThan(Date.now() + 9 * 365 * 86_400_000);
    expect(again).toEqual(made);
    expect((await stat(join(directory, 'server.key'))).mode & 0o777).toBe(0o600);
    await rm(directory, { recursive: true });
  });
});

describe('the configuration', () => {
  const { stringify } = JSON;

  it.each([
    ['[::1]:9443', { host: '::1', port: 9443 }],
    ['::1', { host: '::1', port: 8443 }],
    [':9443', { host: '::', port: 9443 }],
    ['10.0.0.1', { host: '10.0.0.1', port: 8443 }],
    ['*:1', { host: '::', port: 1 }],
    ['node:2', { host: 'node', port: 2 }],
  ])('reads the address %s', (text, address) => {
    expect(parseAddress(text)).toEqual(address);
  });

  it('keeps the password as a hash, says only that there is one, and takes that answer back', async () => {
    const { config } = test.engine;
    await config.update({ 'core.trust_password': 'secret' });

    await config.update(config.view(), { replace: true });

    expect(config.view()).toEqual({ 'core.trust_password': true });
    expect(stringify(test.engine.context.database.server.config())).not.toContain('secret');
    expect([await config.isTrustPassword('secret'), await config.isTrustPassword('')]).toEqual([true, false]);
  });

  it('keeps the old address when the new one cannot be listened on', async () => {
    const { config } = test.engine;
    config.onAddress(async () => {
      throw new Error('in use');
    });

    await expect(config.update({ 'core.https_address': '127.0.0.1:1', 'user.a': 'b' })).rejects.toThrow('in use');

    expect(config.view()).toEqual({});
  });
});

it('hashes passwords with a salt of their own', async () => {
  const [one, two] = await Promise.all([hashPassword('p'), hashPassword('p')]);

  expect(one).not.toBe(two);
  expect([await isPassword(one, 'p'), await isPassword(one, 'q'), await isPassword('zz', 'p')]).toEqual([
    true,
    false,
    false,
  ]);
});

it('reads lists of CPUs', () => {
  expect([...cpuSet('0-2,7')]).toEqual([0, 1, 2, 7]);
  expect([...cpuSet('')]).toEqual([]);
});
