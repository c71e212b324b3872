// Who may do what: clients without a trusted certificate, and restricted ones (lxd-engine-contract section 0, Trust).
import { afterEach, describe, expect, it } from 'vitest';
import type { Caller } from '#src/api/app.ts';
import { openApiText } from '../../../scripts/openapi-text.ts';
import { startTestEngine, type TestEngine } from '../../fakes/test-engine.ts';
import { tarOf } from '../../fakes/tar.ts';
import { Readable } from 'node:stream';

const requestor = { username: 'f00', protocol: 'tls', address: '10.0.0.1:1' } as const;
const STRANGER: Caller = { requestor, trusted: false };
const RESTRICTED: Caller = { requestor, trusted: true, projects: new Set(['other']) };
const OF_DEFAULT: Caller = { requestor, trusted: true, projects: new Set(['default']) };

let test: TestEngine;
afterEach(() => test[Symbol.asyncDispose]());

async function status(
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE',
  url: string,
  payload?: object,
  headers = {},
) {
  return (await test.app.inject({ method, url, headers, ...(payload && { payload }) })).statusCode;
}

async function addImage(isPublic: boolean): Promise<string> {
  const metadata = `architecture: x86_64\n# ${String(isPublic)}\n`;
  const content = Readable.from([tarOf({ 'metadata.yaml': metadata })]);
  await using staged = await test.engine.images.files.stage(
    (async function* () {
      yield { name: 'metadata' as const, content };
    })(),
  );
  const upload = { project: 'default', filename: 'x', isPublic, autoUpdate: false, properties: {}, aliases: [] };
  return (await test.engine.images.publish(staged, upload, AbortSignal.timeout(5000))).fingerprint;
}

describe('a stranger', () => {
  it('sees the server without its configuration and environment', async () => {
    test = await startTestEngine({ caller: STRANGER });

    const { metadata } = (await test.app.inject('/1.0')).json<{ metadata: Record<string, unknown> }>();

    expect(metadata['auth']).toBe('untrusted');
    expect(Object.keys(metadata)).not.toContain('config');
    expect(Object.keys(metadata)).not.toContain('environment');
  });

  it('is let in where LXD lets strangers in, and nowhere else', async () => {
    test = await startTestEngine({ caller: STRANGER });
    const { paths } = JSON.parse(await openApiText()) as {
      paths: Record<string, Record<string, { security?: unknown }>>;
    };
    const routes = Object.entries(paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, { security }]) => ({ method, path, isOpen: security !== undefined })),
    );

    expect(routes.filter(({ isOpen }) => isOpen).map(({ method, path }) => `${method} ${path}`)).toEqual([
      'get /',
      'get /1.0',
      'post /1.0/certificates',
      'get /1.0/images',
      'post /1.0/images',
      'get /1.0/images/{fingerprint}',
      'get /1.0/images/{fingerprint}/export',
      'get /1.0/images/aliases/{alias}',
      'get /1.0/metrics',
      'get /1.0/operations/{id}/wait',
      'get /1.0/operations/{id}/websocket',
    ]);
    for (const { method, path } of routes.filter(({ isOpen }) => !isOpen)) {
      if (path.startsWith('/1.0/instances') || path.startsWith('/1.0/containers')) continue; // not on this engine
      const url = path.replaceAll(/\{\w+\}/gu, 'x');
      const code = await status(method.toUpperCase() as 'GET', url, method === 'get' ? undefined : {});
      expect({ method, url, code }).toEqual({ method, url, code: 403 });
    }
  });

  it('sees public images alone, and a private one with its token', async () => {
    test = await startTestEngine({ caller: STRANGER });
    const open = await addImage(true);
    const closed = await addImage(false);
    test.engine.aliases.create('default', { name: 'closed', description: '', target: closed });
    const secret = 's'.repeat(64);
    const spec = { class: 'token', description: 'Image download token', project: 'default' } as const;
    const resources = { images: [`/1.0/images/${closed}`] };
    const { promise, resolve } = Promise.withResolvers<void>();
    test.engine.operations.start({ ...spec, resources, metadata: { secret } }, () => promise);

    const list = (await test.app.inject('/1.0/images')).json<{ metadata: string[] }>().metadata;

    expect(list).toEqual([`/1.0/images/${open}`]);
    expect(await status('GET', `/1.0/images/${open}`)).toBe(200);
    expect(await status('GET', `/1.0/images/${closed}`)).toBe(404);
    expect(await status('GET', `/1.0/images/${closed}/export`)).toBe(404);
    expect(await status('GET', `/1.0/images/${closed}?secret=wrong`)).toBe(404);
    expect(await status('GET', `/1.0/images/${closed}?secret=${secret}`)).toBe(200);
    expect(await status('GET', '/1.0/images/aliases/closed')).toBe(404);
    resolve();
  });

  it('that wants no silent downgrade gets 403 where strangers are let in', async () => {
    test = await startTestEngine({ caller: STRANGER });

    expect(await status('GET', '/1.0', undefined, { 'x-lxd-authenticated': 'true' })).toBe(403);
  });

  it('is not trusted for a wrong password, nor for a right one without a certificate', async () => {
    test = await startTestEngine({ caller: STRANGER });
    await test.engine.config.update({ 'core.trust_password': 'right' });

    for (const password of ['', 'wrong', 'right']) {
      expect(await status('POST', '/1.0/certificates', { type: 'client', password })).toBe(403);
    }

    expect(test.engine.certificates.list()).toEqual([]);
  });

  it('waits for an operation by its secret alone', async () => {
    test = await startTestEngine({ caller: STRANGER });
    const metadata = { secret: 'abc' };
    const id = test.engine.operations.start(
      { class: 'token', description: 'T', resources: {}, metadata },
      async () => undefined,
    );

    expect(await status('GET', `/1.0/operations/${id}/wait?secret=abd`)).toBe(403);
    expect(await status('GET', `/1.0/operations/${id}/wait?secret=abc`)).toBe(200);
  });
});

describe('a client restricted to projects', () => {
  it('does not change the server', async () => {
    test = await startTestEngine({ caller: OF_DEFAULT });
    const config = { config: { 'user.a': 'b' } };

    expect(await status('PATCH', '/1.0', config)).toBe(403);
    expect(await status('POST', '/1.0/storage-pools', { name: 'p', driver: 'memory' })).toBe(403);
    expect(await status('POST', '/1.0/certificates', { token: true })).toBe(403);
    expect(await status('GET', '/1.0/profiles')).toBe(200);
    expect(await status('POST', '/1.0/profiles', { name: 'p' })).toBe(201);
  });

  it('sees nothing of other projects', async () => {
    test = await startTestEngine({ caller: RESTRICTED });

    expect(await status('GET', '/1.0/profiles')).toBe(403);
    expect(await status('GET', '/1.0/images')).toBe(403);
  });
});
