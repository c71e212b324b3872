import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EngineClient } from '#src/client/client.ts';
import { engineError } from '#src/client/errors.ts';
import type { Operation } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import { poll } from '#src/lib/wait.ts';
import { FakeLxd } from '#test/fakes/fake-lxd.ts';

let server: FakeLxd;
let client: EngineClient;

const soon = (): AbortSignal => AbortSignal.timeout(5000);

/** In place of the server that the test began with. */
async function serve(options: Parameters<typeof FakeLxd.start>[0] = {}): Promise<void> {
  await leave();
  server = await FakeLxd.start(options);
  client = new EngineClient({ endpoint: server.endpoint });
}

async function leave(): Promise<void> {
  client?.close();
  await server?.[Symbol.asyncDispose]();
}

beforeEach(async () => serve());
afterEach(leave);

describe('errors of the engine', () => {
  it.each([
    [404, 'Instance not found', 'not_found'],
    [400, 'Invalid instance name: Name must not start with a number', 'invalid'],
    [400, 'Instance is running', 'conflict'],
    [409, 'Alias "deb" already exists', 'conflict'],
    [412, "ETag doesn't match: A vs B", 'conflict'],
    [403, 'not authorized', 'forbidden'],
    [501, 'not implemented', 'unsupported'],
    [503, 'LXD daemon setup in progress', 'unavailable'],
    [500, 'Error inserting "p" into database: The profile already exists', 'conflict'],
    [500, 'disk full', 'internal'],
  ] as const)('%i %s is %s', (code, text, kind) => {
    expect(engineError(code, `${text}\n\n`, 'GET /1.0')).toMatchObject({
      kind,
      reply: text,
      message: `GET /1.0: ${text}`,
    });
  });

  it('reach the caller with the request and the words of the engine', async () => {
    await expect(client.instances.get('none')).rejects.toMatchObject({
      kind: 'not_found',
      message: 'GET /1.0/instances/none: Instance not found',
    });
  });

  it('are "unavailable" when nobody listens', async () => {
    await server.shutDown();

    await expect(client.server()).rejects.toMatchObject({ kind: 'unavailable' });

    await server.listen();
  });

  it('keep the reason of the caller that cancelled', async () => {
    const reason = new Error('enough');

    await expect(client.server(AbortSignal.abort(reason))).rejects.toBe(reason);
  });

  it('do not surface for a connection that the engine closed between two requests', async () => {
    await client.server();
    await server.shutDown();
    await server.listen();

    await expect(client.server()).resolves.toMatchObject({ auth: 'trusted' });
  });
});

describe('operations', () => {
  const start = async (): Promise<Operation> =>
    (await client.instances.setState('c1', { action: 'start' }, { signal: soon() })).wait(soon());

  it('are waited for by the event stream alone', async () => {
    server.addInstance('c1');

    await start();

    expect(server.requests.filter((line) => line.includes('/wait'))).toEqual([]);
    expect(server.streamCount).toBe(1);
  });

  it('share one event stream', async () => {
    for (const name of ['c1', 'c2', 'c3']) server.addInstance(name);

    await Promise.all(
      ['c1', 'c2', 'c3'].map(async (name) =>
        (await client.instances.setState(name, { action: 'start' }, { signal: soon() })).wait(soon()),
      ),
    );

    expect(server.requests.filter((line) => line.startsWith('WS'))).toHaveLength(1);
  });

  it('reject with what made them fail', async () => {
    server.addInstance('c1');
    await start();

    await expect(start()).rejects.toMatchObject({ kind: 'conflict', reply: 'The instance is already running' });
  });

  it('end although the end was reported before the answer to the request', async () => {
    server.addInstance('c1');

    await expect(start()).resolves.toMatchObject({ status_code: 200 });
  });

  it('are waited for with a blocking request when there is no event stream', async () => {
    await serve({ operationMs: 30 });
    server.allowStreams(false);
    server.addInstance('c1');

    await expect(start()).resolves.toMatchObject({ status_code: 200 });

    expect(server.requests.some((line) => line.endsWith('/wait'))).toBe(true);
  });

  it('are found out about when the stream breaks while waiting', async () => {
    await serve({ operationMs: 100 });
    server.addInstance('c1');
    const pending = await client.instances.setState('c1', { action: 'start' }, { signal: soon() });
    const ended = pending.wait(soon());

    server.breakStreams();

    await expect(ended).resolves.toMatchObject({ status_code: 200 });
  });

  it('say that the outcome was missed when the record is gone', async () => {
    await serve({ operationMs: 100 });
    server.addInstance('c1');
    const pending = await client.instances.setState('c1', { action: 'start' }, { signal: soon() });
    const ended = pending.wait(soon());

    server.forgetOperations();
    server.breakStreams();

    await expect(ended).rejects.toMatchObject({
      kind: 'unavailable',
      message: expect.stringContaining('missed') as string,
    });
  });

  it('go on when the caller stops waiting', async () => {
    await serve({ operationMs: 100 });
    server.addInstance('c1');
    const pending = await client.instances.setState('c1', { action: 'start' }, { signal: soon() });

    await expect(pending.wait(AbortSignal.timeout(10))).rejects.toThrow('timeout');

    await expect(pending.wait(soon())).resolves.toMatchObject({ status_code: 200 });
  });
});

describe('the event stream', () => {
  it('comes back after it broke, and says so', async () => {
    let openings = 0;
    let losses = 0;
    client.events.listen({ opened: () => (openings += 1), lost: () => (losses += 1) });
    await client.events.open();

    server.breakStreams();
    await poll(() => (openings === 2 ? true : undefined), 10, soon());

    expect(losses).toBe(1);
    expect(client.events.isOpen).toBe(true);
  });

  it('comes back when the engine was away for a while', async () => {
    await client.events.open();
    await server.shutDown();
    await poll(() => (client.events.isOpen ? undefined : true), 10, soon());

    await server.listen();

    await poll(() => (client.events.isOpen ? true : undefined), 10, soon());
  });

  it('keeps on trying after the first attempt failed', async () => {
    server.allowStreams(false);
    await expect(client.events.open()).rejects.toMatchObject({ kind: 'unavailable' });

    server.allowStreams(true);

    await poll(() => (client.events.isOpen ? true : undefined), 10, soon());
  });

  it('stays closed when it was closed', async () => {
    await client.events.open();

    client.events.close();

    await poll(() => (server.streamCount === 0 ? true : undefined), 10, soon());
    await new Promise((resolve) => setTimeout(resolve, 400));
    expect(server.streamCount).toBe(0);
  });

  it('does not deliver to who stopped listening', async () => {
    const seen: string[] = [];
    const listening = client.events.listen({ event: ({ type }) => seen.push(type) });
    await client.events.open();
    server.lifecycle('instance-started', '/1.0/instances/c1');
    await poll(() => (seen.length === 1 ? true : undefined), 10, soon());

    listening[Symbol.dispose]();
    server.lifecycle('instance-started', '/1.0/instances/c1');
    await client.server();

    expect(seen).toEqual(['lifecycle']);
  });
});

describe('uploads', () => {
  it('send metadata and root file system as two parts, byte for byte', async () => {
    const metadata = Buffer.from('metadata\r\n--tricky');
    const rootfs = Buffer.from('root\0\xff', 'latin1');

    const upload = await client.images.upload({
      content: { kind: 'split', metadata, rootfs: Readable.from([rootfs.subarray(0, 2), rootfs.subarray(2)]) },
      filename: 'root.tar.gz',
      properties: { os: 'a&b', 'nova.cache_key': 'x=y' },
    });
    const { metadata: result } = await upload.wait(soon());

    const image = server.images.get(String(result?.['fingerprint']));
    expect(image?.metadata).toEqual(metadata);
    expect(image?.content).toEqual(rootfs);
    expect(image).toMatchObject({ filename: 'root.tar.gz', properties: { os: 'a&b', 'nova.cache_key': 'x=y' } });
  });

  it('break off when the content fails, with the failure of the content', async () => {
    const failure = new AppError('invalid', 'checksum mismatch');
    async function* content(): AsyncGenerator<Buffer> {
      yield Buffer.alloc(100_000);
      await poll(() => (server.requests.includes('POST /1.0/images') ? true : undefined), 5, soon());
      throw failure;
    }

    const upload = client.images.upload({
      content: { kind: 'unified', tarball: Readable.from(content()) },
      filename: 'x',
    });

    await expect(upload).rejects.toBe(failure);
    await poll(() => (server.abortedUploads === 1 ? true : undefined), 10, soon());
    expect(server.images.size).toBe(0);
  });

  it('release the content when the engine refuses', async () => {
    server.fail(/POST \/1.0\/images/, 403, 'not authorized');
    const tarball = Readable.from([Buffer.alloc(10)]);

    await expect(client.images.upload({ content: { kind: 'unified', tarball }, filename: 'x' })).rejects.toMatchObject({
      kind: 'forbidden',
    });

    expect(tarball.destroyed).toBe(true);
  });
});

describe('updates', () => {
  it('fail with "conflict" when the instance changed meanwhile', async () => {
    server.addInstance('c1', { a: '1' });
    const { instance, etag } = await client.instances.getWithTag('c1');
    await client.instances.patch('c1', { config: { a: '2' } });

    await expect(client.instances.update('c1', { config: instance.config }, { etag })).rejects.toMatchObject({
      kind: 'conflict',
    });
  });
});
