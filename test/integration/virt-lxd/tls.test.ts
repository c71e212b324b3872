// The client over TLS, with a certificate that the engine trusts and the engine's own one pinned.
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { metadataTarball } from '#drivers/virt/lxd/image-metadata.ts';
import { writeTar } from '#src/lib/tar.ts';
import { EngineClient } from '#src/client/client.ts';
import type { Endpoint } from '#src/client/transport.ts';
import { describeWith } from '../support.ts';
import { type EngineName, type RunningEngine, startEngine } from './engines.ts';

const run = promisify(execFile);

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const ENGINES: readonly (readonly [EngineName, readonly string[]])[] = [
  ['lxd', ['lxd', 'openssl']],
  ['lighterd', ['lxc-start', 'openssl']],
];

for (const [name, commands] of ENGINES)
  describeWith({ root: true, commands }, `client over TLS to ${name}`, () => suite(name));

function suite(name: EngineName): void {
  let engine: RunningEngine;
  let folder: string;
  let endpoint: Extract<Endpoint, { kind: 'https' }>;

  beforeAll(async () => {
    engine = await startEngine(name);
    folder = await mkdtemp(join(tmpdir(), 'client-tls-'));
    const files = ['-keyout', join(folder, 'key'), '-out', join(folder, 'cert'), '-subj', '/CN=compute'];
    await run('openssl', [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:secp384r1',
      '-nodes',
      ...files,
    ]);
    const port = await freePort();
    await engine.client.request('PATCH', '/1.0', { body: { config: { 'core.https_address': `127.0.0.1:${port}` } } });
    endpoint = {
      kind: 'https',
      url: `https://127.0.0.1:${port}`,
      clientCertificate: await readFile(join(folder, 'cert'), 'utf8'),
      clientKey: await readFile(join(folder, 'key'), 'utf8'),
      serverCertificate: String((await engine.client.server()).environment?.['certificate']),
    };
  });

  afterAll(async () => {
    await engine[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });

  it('is not trusted before its certificate is', async () => {
    using client = new EngineClient({ endpoint });

    expect((await client.server()).auth).toBe('untrusted');
    await expect(client.instances.list()).rejects.toMatchObject({ kind: 'forbidden' });
  });

  it('refuses a server with another certificate', async () => {
    using client = new EngineClient({ endpoint: { ...endpoint, serverCertificate: endpoint.clientCertificate } });

    await expect(client.server()).rejects.toThrow(/certificate/i);
  });

  it('makes requests, hears events and uploads images', async () => {
    const certificate = endpoint.clientCertificate.replaceAll(/-----[A-Z ]+-----|\s/g, '');
    await engine.client.request('POST', '/1.0/certificates', {
      body: { name: 'compute', type: 'client', certificate },
    });
    using client = new EngineClient({ endpoint });

    expect((await client.server()).auth).toBe('trusted');
    const metadata = metadataTarball('tls', 'x86_64');
    const rootfs = Readable.from([writeTar([{ name: 'big', content: 'x'.repeat(5_000_000) }])]);
    const upload = client.images.upload({ content: { kind: 'split', metadata, rootfs }, filename: 'x.tar' });
    const { metadata: result } = await (await upload).wait(AbortSignal.timeout(20_000));

    expect(client.events.isOpen).toBe(true);
    expect((await client.images.list()).map(({ fingerprint }) => fingerprint)).toEqual([result?.['fingerprint']]);
  });
}
