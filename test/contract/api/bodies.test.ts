// What bodies may be: uploads whatever their type says, JSON whatever its type says, and URLs that are none.
import { createHash } from 'node:crypto';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { startTestEngine, type TestEngine } from '../../fakes/test-engine.ts';
import { tarOf } from '../../fakes/tar.ts';

let test: TestEngine;
beforeEach(async () => {
  test = await startTestEngine();
});
afterEach(() => test[Symbol.asyncDispose]());

const IMAGE = tarOf({ 'metadata.yaml': 'architecture: x86_64\n' });
const FINGERPRINT = createHash('sha256').update(IMAGE).digest('hex');

async function upload(payload: Buffer | string, headers: Record<string, string>) {
  const reply = await test.app.inject({ method: 'POST', url: '/1.0/images', payload, headers });
  const { operation, error } = reply.json<{ operation: string; error: string }>();
  if (reply.statusCode !== 202) return { status: reply.statusCode, error };
  const ended = await test.app.inject(`${operation}/wait?timeout=5`);
  const { metadata } = ended.json<{ metadata: { err: string; metadata: unknown } }>();
  return { status: 202, error: metadata.err, metadata: metadata.metadata };
}

it.each([
  ['octet-stream', { 'content-type': 'application/octet-stream' }],
  ['no type', {}],
  ['a type that says nothing', { 'content-type': 'application/x-www-form-urlencoded' }],
])('takes an image with %s', async (_what, headers) => {
  expect(await upload(IMAGE, headers)).toEqual({
    status: 202,
    error: '',
    metadata: { fingerprint: FINGERPRINT, size: String(IMAGE.length) },
  });
});

it('takes headers of Incus as those of LXD', async () => {
  const headers = {
    'x-incus-public': 'true',
    'x-incus-aliases': 'alias=one&alias=two',
    'x-incus-properties': 'a=b%20c',
  };

  await upload(IMAGE, { 'content-type': 'application/octet-stream', ...headers });

  const { aliases, images } = test.engine.context.database;
  expect(images.get('default', FINGERPRINT)).toMatchObject({ isPublic: true, properties: { a: 'b c' } });
  expect(aliases.list('default').map(({ name }) => name)).toEqual(['one', 'two']);
});

it('tells sources in JSON from uploads, also when the type is missing', async () => {
  const source = (type: string) => JSON.stringify({ source: { type, mode: 'pull', url: '' } });

  expect(await upload(source('nothing'), {})).toMatchObject({ status: 500, error: 'Invalid images JSON' });
  expect(await upload(source('instance'), {})).toMatchObject({ status: 500, error: 'No source provided' });
  expect(await upload(source('url'), { 'content-type': 'application/json' })).toMatchObject({
    status: 500,
    error: 'Missing URL',
  });
});

it.each([
  ['parts in the wrong order', ['rootfs', 'metadata'], 'part "rootfs"'],
  ['one part', ['metadata'], 'metadata and rootfs are needed'],
  ['an image of a virtual machine', ['metadata', 'rootfs.img'], 'virtual machines'],
])('refuses a form with %s, and keeps nothing of it', async (_what, names, message) => {
  const parts = names.map(
    (name) => `--b\r\nContent-Disposition: form-data; name="${name}"; filename="x"\r\n\r\ncontent\r\n`,
  );

  const refused = await upload(`${parts.join('')}--b--\r\n`, { 'content-type': 'multipart/form-data; boundary=b' });

  expect(refused).toMatchObject({ status: 400, error: expect.stringContaining(message) as string });
  expect(await test.engine.images.files.clean(new Set())).toEqual([]);
});

it('answers a URL that is none with an envelope', async () => {
  const reply = await test.app.inject('/1.0/images/%zz');

  expect(reply.statusCode).toBe(400);
  expect(reply.json()).toMatchObject({ type: 'error', error_code: 400 });
});

it('reads JSON without a content type', async () => {
  const reply = await test.app.inject({ method: 'POST', url: '/1.0/profiles', payload: Buffer.from('{"name":"p"}') });

  expect(reply.statusCode).toBe(201);
});
