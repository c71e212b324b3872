// PKI mode with the real daemon and certificates of a real authority: who may come, and who may not.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { unmountBelow } from '../mounts.ts';
import { describeWith } from '../support.ts';

const run = promisify(execFile);
const LIGHTERD = join(import.meta.dirname, '../../../bin/lighterd');

interface Answer {
  readonly status: number | undefined;
  readonly error: string;
}

interface Pair {
  readonly cert: string;
  readonly key: string;
}

describeWith({ root: true, commands: ['openssl'] }, 'PKI mode', () => {
  let root: string;
  let daemon: ChildProcess;
  let port: number;
  let signed: Pair;
  let foreign: Pair;

  const openssl = (...args: readonly string[]) => run('openssl', [...args], { cwd: root });
  const read = async (name: string): Promise<Pair> => ({
    cert: await readFile(join(root, `${name}.crt`), 'utf8'),
    key: await readFile(join(root, `${name}.key`), 'utf8'),
  });

  async function answer(request: ReturnType<typeof httpRequest>, body?: object): Promise<Answer> {
    request.end(body && JSON.stringify(body));
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    const { error } = (await json(response)) as { error: string };
    return { status: response.statusCode, error };
  }

  const local = (method: string, path: string, body?: object) =>
    answer(httpRequest({ socketPath: join(root, 'unix.socket'), path, method }), body);
  const remote = (pair: Pair, method: string, path: string, body?: object) =>
    answer(
      httpsRequest({ host: '127.0.0.1', port, path, method, rejectUnauthorized: false, agent: false, ...pair }),
      body,
    );

  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'lighter-pki-'));
    await chmod(root, 0o711);
    const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384', '-nodes'];
    await openssl('req', '-x509', ...ec, '-keyout', 'ca.key', '-out', 'server.ca', '-subj', '/CN=ca', '-days', '2');
    await openssl('req', ...ec, '-keyout', 'signed.key', '-out', 'signed.csr', '-subj', '/CN=signed');
    const by = ['-CA', 'server.ca', '-CAkey', 'ca.key', '-CAcreateserial'];
    await openssl('x509', '-req', '-in', 'signed.csr', ...by, '-out', 'signed.crt', '-days', '2');
    await openssl(
      'req',
      '-x509',
      ...ec,
      '-keyout',
      'foreign.key',
      '-out',
      'foreign.crt',
      '-subj',
      '/CN=x',
      '-days',
      '2',
    );
    [signed, foreign] = [await read('signed'), await read('foreign')];
    const probe = createServer().listen(0, '127.0.0.1');
    await once(probe, 'listening');
    ({ port } = probe.address() as AddressInfo);
    probe.close();

    const env = { PATH: process.env['PATH'] ?? '', LIGHTER_DIR: root };
    daemon = spawn(LIGHTERD, ['--storage', 'none', '--logfile', join(root, 'log')], { env, stdio: 'ignore' });
    const isReady = () => local('GET', '/internal/ready').catch(() => undefined);
    await poll(isReady, 100, AbortSignal.timeout(60_000));
    const config = { 'core.https_address': `127.0.0.1:${port}`, 'core.trust_password': 'right' };
    expect(await local('PATCH', '/1.0', { config })).toMatchObject({ status: 200 });
  });
  afterAll(async () => {
    const gone = once(daemon, 'exit');
    daemon.kill('SIGTERM');
    await gone;
    await unmountBelow(root);
    await rm(root, { recursive: true, force: true });
  });

  it('trusts nobody whom the authority has signed before it is told to', async () => {
    expect((await remote(signed, 'GET', '/1.0/profiles')).status).toBe(403);
    expect((await remote(signed, 'GET', '/1.0')).status).toBe(200);
  });

  it('lets nobody in whom the authority has not signed, whatever password they know', async () => {
    const wish = { type: 'client', password: 'right', name: 'foreign' };

    const added = await remote(foreign, 'POST', '/1.0/certificates', wish).catch(() => undefined);

    // An answer, or a connection that was not even taken: both are a refusal.
    expect([403, undefined]).toContain(added?.status);
    const profiles = await remote(foreign, 'GET', '/1.0/profiles').catch(() => undefined);
    expect([403, undefined]).toContain(profiles?.status);
  });

  it('takes the password from whom the authority has signed', async () => {
    const wish = { type: 'client', password: 'right', name: 'signed' };

    expect((await remote(signed, 'POST', '/1.0/certificates', wish)).status).toBe(201);
    expect((await remote(signed, 'GET', '/1.0/profiles')).status).toBe(200);
  });

  it('trusts all whom the authority has signed when it is told to, and only as long', async () => {
    const tell = (value: string) => local('PATCH', '/1.0', { config: { 'core.trust_ca_certificates': value } });
    const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384', '-nodes'];
    await openssl('req', ...ec, '-keyout', 'other.key', '-out', 'other.csr', '-subj', '/CN=other');
    const by = ['-CA', 'server.ca', '-CAkey', 'ca.key', '-CAcreateserial'];
    await openssl('x509', '-req', '-in', 'other.csr', ...by, '-out', 'other.crt', '-days', '2');
    const other = await read('other');

    const before = await remote(other, 'GET', '/1.0/profiles');
    await tell('true');
    const during = await remote(other, 'GET', '/1.0/profiles');
    const stranger = await remote(foreign, 'GET', '/1.0/profiles').catch(() => undefined);
    await tell('false');
    const after = await remote(other, 'GET', '/1.0/profiles');

    expect([before.status, during.status, after.status]).toEqual([403, 200, 403]);
    expect([403, undefined]).toContain(stranger?.status);
  });
});
