// Global setup of the integration tests: zfs-fuse runs while they do, unless the kernel has zfs or somebody else started it.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const START_LIMIT_MS = 20_000;

function succeeds(command: string, ...args: string[]): boolean {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0;
}

const answers = (): boolean => succeeds('zpool', 'list', '-H');

async function started(daemon: ChildProcess): Promise<void> {
  const limit = Date.now() + START_LIMIT_MS;
  while (!answers()) {
    if (daemon.exitCode !== null || Date.now() > limit) throw new Error('zfs-fuse does not answer');
    await sleep(100);
  }
}

/** Starts what is missing; the function that it gives stops it again. */
export default async function setup(): Promise<(() => Promise<void>) | undefined> {
  const wanted = process.env['INTEGRATION'] === '1' && process.getuid?.() === 0;
  if (!wanted || answers() || !succeeds('sh', '-c', 'command -v zfs-fuse')) return undefined;
  mkdirSync('/run/lock', { recursive: true }); // zfs-fuse dies without a word where it is absent
  const daemon = spawn('zfs-fuse', ['--no-daemon', '--pidfile', `/run/zfs-fuse-${process.pid}.pid`], {
    stdio: 'ignore',
  });
  const ended = new Promise((resolve) => daemon.once('exit', resolve));
  await started(daemon);
  return async () => {
    daemon.kill('SIGTERM');
    await ended;
    succeeds('umount', '/zfs-kstat');
    succeeds('rm', '-f', `/run/zfs-fuse-${process.pid}.pid`);
  };
}
