// Global setup of the integration tests: zfs-fuse runs while they do, unless the kernel has zfs or somebody else started it.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
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

let stop: (() => Promise<void>) | undefined;

/** Starts what is missing. */
export async function setup(): Promise<void> {
  const wanted = process.env['INTEGRATION'] === '1' && process.getuid?.() === 0;
  if (!wanted || answers() || !succeeds('sh', '-c', 'command -v zfs-fuse')) return;
  mkdirSync('/run/lock', { recursive: true }); // zfs-fuse dies without a word where it is absent
  const pidFile = `/run/zfs-fuse-${process.pid}.pid`;
  const daemon = spawn('zfs-fuse', ['--no-daemon', '--pidfile', pidFile], { stdio: 'ignore' });
  const ended = new Promise((resolve) => daemon.once('exit', resolve));
  await started(daemon);
  stop = async () => {
    daemon.kill('SIGTERM');
    await ended;
    succeeds('umount', '/zfs-kstat');
    rmSync(pidFile, { force: true });
  };
}

export async function teardown(): Promise<void> {
  await stop?.();
}
