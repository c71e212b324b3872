// Commands that outlive the daemon which started them.
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Argv, RunningCommand } from '#src/host/host.ts';
import { commandMark, endLeftovers } from '#src/host/leftovers.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { processLife } from '#src/host/process-life.ts';
import { silentLog } from '#src/lib/silent-log.ts';

let folder: string;
let host: LinuxHost;
let started: RunningCommand[];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lighter-left-'));
  host = new LinuxHost({ commandMark: commandMark(folder) });
  started = [];
});

afterEach(async () => {
  for (const { pid } of started) if (processLife(pid)) process.kill(-pid, 'SIGKILL');
  await rm(folder, { recursive: true, force: true });
});

function start(argv: Argv, options: { readonly lasting?: boolean } = {}, on = host): RunningCommand {
  const command = on.start(argv, options);
  command.done.catch(() => undefined);
  started.push(command);
  return command;
}

/** A program of this name that takes so long. */
async function slow(name: string, seconds: number): Promise<Argv> {
  const path = join(folder, name);
  await copyFile('/bin/sleep', path);
  return [path, String(seconds)];
}

const end = (limits: { finishMs?: number; limitMs?: number } = {}) =>
  endLeftovers(commandMark(folder), silentLog, limits);

describe('what a killed daemon left running', () => {
  it('is gone, with its children', async () => {
    const { pid, done, stdout } = start(['sh', '-c', 'sleep 60 & echo $!; wait']);
    const [line] = (await stdout[Symbol.asyncIterator]().next()).value.toString().split('\n') as [string];

    await end();

    expect([processLife(pid), processLife(Number(line))]).toEqual([undefined, undefined]);
    await expect(done).rejects.toThrow('exit status unknown');
  });

  it('may finish a step of a volume manager', async () => {
    const { done } = start(await slow('zfs', 0.3));

    await end();

    expect((await done).exitCode).toBe(0);
  });

  it('is killed when it does not finish it', async () => {
    const { pid } = start(await slow('lvcreate', 60));

    await end({ finishMs: 50 });

    expect(processLife(pid)).toBeUndefined();
  });

  it('is found and gone however soon it is looked for', async () => {
    const command = await slow('lvcreate', 60);
    const left = [];
    for (let round = 0; round < 30; round += 1) {
      const { pid } = start(command);
      // with its environment not there yet, or no more
      await end({ finishMs: 0 });
      left.push(processLife(pid));
    }

    expect(left).toEqual(Array.from(left, () => undefined));
  });

  it('is waited for while it starts something that is to stay', async () => {
    const { done } = start(await slow('lxc-start', 0.3), { lasting: true });

    await end();

    expect((await done).exitCode).toBe(0);
  });

  it('stays when it is to', async () => {
    const { pid } = start(await slow('dnsmasq', 60), { lasting: true });
    const monitor = start(await slow('dmeventd', 60));

    await end();

    expect([processLife(pid), processLife(monitor.pid)]).toEqual([expect.anything(), expect.anything()]);
  });

  it('is nobody else’s', async () => {
    const other = new LinuxHost({ commandMark: commandMark('/') });
    const commands = [start(['sleep', '60'], {}, other), start(['sleep', '60'], {}, new LinuxHost())];

    await end();

    expect(commands.map(({ pid }) => processLife(pid))).toEqual([expect.anything(), expect.anything()]);
  });

  it('does not keep a daemon for ever', async () => {
    const { pid } = start(await slow('lxc-start', 60), { lasting: true });

    await end({ limitMs: 100 });

    expect(processLife(pid)).toBeDefined();
  });
});
