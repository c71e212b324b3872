// A program that goes on without this process.
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { atNormalPriority } from '#src/lib/priority.ts';
import { commandPoint, startedPoint } from '../faults.ts';
import type { Argv } from '../host.ts';

const ENVIRONMENT = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' };

/** In a session of its own, with `descriptor` as its number 3. `ended` resolves at its end, if this process is there to see it. */
export function launchServer(
  argv: Argv,
  { descriptor, logPath }: { readonly descriptor: number; readonly logPath: string },
): { readonly pid: number; readonly ended: Promise<void> } {
  const [program, ...args] = argv;
  const log = openSync(logPath, 'a', 0o600);
  try {
    commandPoint(argv);
    const options = { cwd: '/', detached: true, env: ENVIRONMENT };
    const child = atNormalPriority(() => spawn(program, args, { ...options, stdio: ['ignore', log, log, descriptor] }));
    child.unref();
    startedPoint(argv);
    const ended = new Promise<void>((resolve) => {
      child.on('error', () => resolve());
      child.on('exit', () => resolve());
    });
    return { pid: child.pid ?? -1, ended };
  } finally {
    closeSync(log);
  }
}
