// The socket inside of instances: they learn about themselves, and of nobody else.
import { readFile } from 'node:fs/promises';
import { request } from 'node:http';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { poll } from '#src/lib/wait.ts';
import { describeWith } from '../support.ts';
import { deviceBench, type DeviceBench } from './devices-support.ts';

describeWith({ root: true, commands: ['lxc', 'lxc-start', 'busybox', 'nsenter'] }, 'the socket in containers', () => {
  let bench: DeviceBench;

  beforeAll(async () => {
    bench = await deviceBench();
    await bench.launch('lxd-c1', '-c', 'user.foo=bar', '-c', 'user.meta-data=role: db');
  });
  afterAll(() => bench[Symbol.asyncDispose]());

  /** Of a process in the container's control groups, as busybox has no client for unix sockets. */
  async function ask(path: string, name = 'lxd-c1'): Promise<string> {
    const socket = `/proc/${await bench.pid(name)}/root/dev/lxd/sock`;
    const join1 = join(import.meta.dirname, 'ask-from-group.ts');
    const child = spawn(process.execPath, [join1, String(await bench.pid(name)), socket, path], { stdio: 'pipe' });
    const chunks: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
    await new Promise((resolve) => child.once('close', resolve));
    return Buffer.concat(chunks).toString();
  }

  it('answers what the instance may know', async () => {
    expect(await ask('/')).toBe('200 ["/1.0"]');
    expect(await ask('/1.0')).toBe('200 {"api_version":"1.0","location":"none","instance_type":"container"}');
    expect(await ask('/1.0/config')).toBe('200 ["/1.0/config/user.foo","/1.0/config/user.meta-data"]');
    expect(await ask('/1.0/config/user.foo')).toBe('200 bar');
    expect(await ask('/1.0/config/user.nope')).toMatch(/^404 not found/u);
    expect(await ask('/1.0/config/limits.memory')).toMatch(/^403 not authorized/u);
    expect(await ask('/1.0/meta-data')).toMatch(
      /^200 #cloud-config\ninstance-id: \S+\nlocal-hostname: lxd-c1\nrole: db$/u,
    );
    expect(await ask('/1.0/devices')).toContain('"root":{');
    expect(await ask('/1.0/images/abc/export')).toMatch(/^403/u);
    expect(await ask('/2.0')).toMatch(/^404/u);
  });

  it('does not answer a process of the host', async () => {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    const socketPath = join(bench.daemon.root, 'devlxd', 'sock');
    request({ socketPath, path: '/1.0' }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    })
      .on('error', reject)
      .end();

    expect(await promise).toBe(500);
  });

  it('tells of changes while they happen', async () => {
    const seen = ask('/1.0/events?type=config');
    const stream = seen.then((text) => text);
    await poll(
      async () => {
        await bench.lxc('config', 'set', 'lxd-c1', 'user.foo', `v${Date.now()}`);
        return Promise.race([stream, new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), 300))]);
      },
      50,
      AbortSignal.timeout(20_000),
    );

    expect(await stream).toMatch(/"type":"config".*"key":"user\.foo"/u);
  });

  it('is there again after the daemon was killed, for containers that ran on', async () => {
    await bench.daemon.kill();
    await bench.daemon.boot();

    await poll(
      async () => ((await ask('/1.0')).startsWith('200') ? true : undefined),
      100,
      AbortSignal.timeout(15_000),
    );
  });

  it('comes and goes with security.devlxd', async () => {
    await bench.lxc('config', 'set', 'lxd-c1', 'security.devlxd', 'false');
    expect(await readFile(`/proc/${await bench.pid('lxd-c1')}/mountinfo`, 'utf8')).not.toContain('/dev/lxd');
    await bench.lxc('config', 'set', 'lxd-c1', 'security.devlxd', 'true');
    expect(await ask('/1.0/config/user.foo')).toMatch(/^200 v/u);
  });
});
