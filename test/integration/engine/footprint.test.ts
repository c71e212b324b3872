// What the daemon costs, started as operators start it: memory after many lives of instances, and the time of an answer.
import { type ChildProcess, spawn } from 'node:child_process';
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { makeBusyboxImage } from '../images.ts';
import { unmountBelow } from '../mounts.ts';
import { describeWith } from '../support.ts';

const LIGHTERD = join(import.meta.dirname, '../../../bin/lighterd');
const CYCLES = 100;
const MAX_RSS_KIB = 85 * 1024;
const MAX_ANSWER_MS = 2;

interface Envelope {
  readonly operation: string;
  readonly error: string;
  readonly metadata: Record<string, unknown>;
}

describeWith({ root: true, commands: ['lxc-start', 'busybox', 'tar'] }, 'the footprint of lighterd', () => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  let root: string;
  let daemon: ChildProcess;

  async function call(method: string, path: string, body?: unknown): Promise<Envelope> {
    const { promise, resolve, reject } = Promise.withResolvers<Envelope>();
    const sent = request({ socketPath: join(root, 'unix.socket'), path, method, agent }, (response) => {
      json(response).then((answer) => resolve(answer as Envelope), reject);
    });
    sent.on('error', reject);
    if (Buffer.isBuffer(body)) sent.setHeader('content-type', 'application/octet-stream');
    sent.end(body === undefined || Buffer.isBuffer(body) ? body : JSON.stringify(body));
    return promise;
  }

  async function operate(method: string, path: string, body?: unknown): Promise<void> {
    const { operation, error } = await call(method, path, body);
    if (operation === '') throw new Error(error);
    const { metadata } = await call('GET', `${operation}/wait?timeout=60`);
    if (metadata['status_code'] !== 200) throw new Error(String(metadata['err']));
  }

  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'lighter-'));
    await chmod(root, 0o711);
    const env = { PATH: process.env['PATH'] ?? '', LIGHTER_DIR: root };
    daemon = spawn(LIGHTERD, ['--logfile', join(root, 'log')], { env, stdio: 'ignore' });
    await poll(() => call('GET', '/internal/ready').catch(() => undefined), 100, AbortSignal.timeout(60_000));
    const image = join(root, 'bb.tar.gz');
    await makeBusyboxImage(image);
    await operate('POST', '/1.0/images', await readFile(image));
  });
  afterAll(async () => {
    const gone = new Promise((resolve) => daemon.once('exit', resolve));
    daemon.kill('SIGTERM');
    await gone;
    agent.destroy();
    await unmountBelow(root);
    await rm(root, { recursive: true, force: true });
  });

  it(`stays below ${MAX_RSS_KIB} KiB over ${CYCLES} lives of instances`, { timeout: 300_000 }, async () => {
    const source = { type: 'image', properties: { os: 'busybox' } };
    for (let cycle = 0; cycle < CYCLES; cycle++) {
      await operate('POST', '/1.0/instances', { name: `c${cycle}`, source, start: true });
      await operate('PUT', `/1.0/instances/c${cycle}/state`, { action: 'stop', force: true });
      await operate('DELETE', `/1.0/instances/c${cycle}`);
    }

    const status = await readFile(`/proc/${daemon.pid}/status`, 'utf8');
    expect(Number(/^VmRSS:\s+(\d+)/mu.exec(status)?.[1])).toBeLessThan(MAX_RSS_KIB);
  });

  it.each([
    '/1.0',
    '/1.0/instances',
    '/1.0/instances?recursion=1',
    '/1.0/images?recursion=1',
    '/1.0/profiles?recursion=1',
  ])(`answers GET %s in ${MAX_ANSWER_MS} ms`, async (path) => {
    const medians: number[] = [];
    for (let round = 0; round < 8; round++) {
      const times: number[] = [];
      for (let count = 0; count < 25; count++) {
        const start = performance.now();
        await call('GET', path);
        times.push(performance.now() - start);
      }
      medians.push(times.toSorted((a, b) => a - b)[12] ?? Infinity);
    }

    // The best of the rounds: what the daemon needs, not what else the machine does.
    expect(Math.min(...medians)).toBeLessThan(MAX_ANSWER_MS);
  });
});
