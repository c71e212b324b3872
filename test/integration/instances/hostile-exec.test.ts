// Requests for commands, consoles and devices in a running container that nobody who means well would make.
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeWith } from '../support.ts';
import { HOSTILE_DRIVER, TestDaemon } from './daemon-support.ts';
import { HostileGuest } from './hostile-support.ts';

const REQUESTS: Readonly<Record<string, object>> = {
  'a window of negative size': { command: ['true'], interactive: true, width: -1, height: -5 },
  'a window that no terminal has': { command: ['true'], interactive: true, width: 2 ** 31, height: 2 ** 40 },
  'a window that is text': { command: ['true'], interactive: true, width: 'wide', height: [] },
  'no command': { command: [] },
  'an empty command': { command: [''] },
  'a command with a NUL': { command: ['sh', '-c', 'true\0false'] },
  'arguments without end': { command: ['true', ...Array.from({ length: 40_000 }, () => 'x'.repeat(60))] },
  'one argument without end': { command: ['true', 'x'.repeat(200_000)] },
  'names in the environment that are none': { command: ['true'], environment: { 'A=B': 'c', '': 'd', 'X\nY': 'e' } },
  'a NUL in the environment': { command: ['true'], environment: { A: 'b\0c' } },
  'the loader of programs in the environment': {
    command: ['true'],
    environment: { LD_PRELOAD: '/tmp/evil.so', PATH: '/tmp' },
  },
  'an environment without end': {
    command: ['true'],
    environment: Object.fromEntries(Array.from({ length: 20_000 }, (_, at) => [`A${at}`, 'x'.repeat(100)])),
  },
  'a user that nobody is': { command: ['true'], user: 4_294_967_295, group: 4_294_967_295 },
  'a user outside of its ids': { command: ['true'], user: 3_000_000_000 },
  'a user less than root': { command: ['true'], user: -1 },
  'a directory with a NUL': { command: ['true'], cwd: '/tmp\0/x' },
  'a directory without end': { command: ['true'], cwd: `/${'d/'.repeat(100_000)}` },
  'a directory that climbs out': { command: ['touch', 'evil'], cwd: '/../../../../proc/1/cwd/../../..' },
};

describeWith({ root: true, commands: ['lxc-start', 'busybox'] }, 'a running container asked for', () => {
  let daemon: TestDaemon;
  let guest: HostileGuest;
  let outside: string;

  beforeAll(async () => {
    daemon = await TestDaemon.start(HOSTILE_DRIVER);
    outside = await mkdtemp(join(tmpdir(), 'lighter-outside-'));
    await daemon.addImage();
    await daemon.launch('x1');
    await daemon.ready('x1');
    guest = new HostileGuest(daemon, 'x1');
  });
  afterAll(async () => {
    await daemon[Symbol.asyncDispose]();
    await rm(outside, { recursive: true, force: true });
  });

  /** The one for device nodes comes with the first device, and stays. */
  const mounts = async () => (await daemon.mounts()).filter((path) => path !== join(daemon.root, 'devices'));

  async function isWell(): Promise<void> {
    expect(await guest.exec(['echo', 'well'])).toEqual({ code: 0, output: 'well\n' });
    expect((await daemon.log()).includes('uncaught')).toBe(false);
    expect(await readdir(outside)).toEqual([]);
  }

  it.each(Object.keys(REQUESTS))('%s runs it or says why not', async (name) => {
    const started = await daemon.call('POST', '/1.0/instances/x1/exec', { 'record-output': true, ...REQUESTS[name] });

    expect(started.status === 202 || (started.status >= 400 && started.status < 500), started.error).toBe(true);
    if (started.type === 'async' && !('interactive' in (REQUESTS[name] ?? {}))) {
      const { metadata } = await daemon.call('GET', `${started.operation}/wait?timeout=20`);
      expect(['Success', 'Failure']).toContain(metadata.status);
    } else if (started.type === 'async') await daemon.call('DELETE', started.operation);
    await isWell();
  });

  it.each([
    ['climbs out', () => `/../../../../../..${outside}/evil`],
    ['is a link of the guest to the host', () => '/tmp/link/evil'],
    ['is the root', () => '/./'],
    ['is the kernel', () => '/proc/self/evil'],
    ['is where the engine works', () => '/dev/.lxd-mounts/evil'],
  ])('a disk at a path that %s gets it inside or not at all', async (_what, path) => {
    await guest.exec(['sh', '-c', 'ln -sfn $OUTSIDE /tmp/link'], { environment: { OUTSIDE: outside } });
    const disk = { type: 'disk', source: '/usr/share', path: path() };
    const before = await mounts();

    const patched = await daemon.call('PATCH', '/1.0/instances/x1', { devices: { evil: disk } });
    if (patched.type === 'async') await daemon.call('GET', `${patched.operation}/wait?timeout=20`);
    const { metadata } = await daemon.call('GET', '/1.0/instances/x1');
    await daemon.operate('PUT', '/1.0/instances/x1', { ...metadata, devices: {} });

    expect(await mounts()).toEqual(before);
    await isWell();
  });
});
