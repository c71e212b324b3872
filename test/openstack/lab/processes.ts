// Background processes of the lab: started once, found again by pid file and start time, stopped by pid.
import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SYSTEM_ENV } from './commands.ts';
import type { LabPaths } from './settings.ts';

export interface ProcessSpec {
  readonly name: string;
  readonly argv: readonly [string, ...string[]];
  readonly env?: Readonly<Record<string, string>>;
}

/** Field 22 of /proc/PID/stat, so that a reused pid is not taken for ours; undefined for the dead and for zombies. */
function startTimeOf(pid: number): string | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

export class Processes {
  readonly #paths: LabPaths;

  constructor(paths: LabPaths) {
    this.#paths = paths;
    for (const path of [paths.run, paths.log, paths.data]) mkdirSync(path, { recursive: true });
  }

  names(): readonly string[] {
    return readdirSync(this.#paths.run)
      .filter((file) => file.endsWith('.pid'))
      .map((file) => file.slice(0, -4));
  }

  /** The process id when it runs. */
  pid(name: string): number | undefined {
    const file = this.#pidFile(name);
    if (!existsSync(file)) return undefined;
    const [pid, startTime] = readFileSync(file, 'utf8').trim().split(' ');
    return startTime !== undefined && startTimeOf(Number(pid)) === startTime ? Number(pid) : undefined;
  }

  logFile(name: string): string {
    return join(this.#paths.log, `${name}.log`);
  }

  /** No-op when it runs already. */
  start({ name, argv, env }: ProcessSpec): void {
    if (this.pid(name) !== undefined) return;
    const log = openSync(this.logFile(name), 'a');
    const [file, ...args] = argv;
    const child = spawn(file, args, { detached: true, stdio: ['ignore', log, log], env: { ...SYSTEM_ENV, ...env } });
    closeSync(log);
    child.on('error', (error) => {
      console.error(`${name} could not be started: ${error.message}`);
    });
    if (child.pid === undefined) throw new Error(`${name} could not be started: is ${file} installed?`);
    writeFileSync(this.#pidFile(name), `${child.pid} ${startTimeOf(child.pid) ?? ''}\n`);
    child.unref();
  }

  /** TERM, then KILL after the grace time, for the whole session of the process. */
  async stop(name: string, graceMs = 15_000): Promise<void> {
    const pid = this.pid(name);
    if (pid !== undefined) {
      process.kill(pid, 'SIGTERM');
      for (let waited = 0; waited < graceMs && this.pid(name) !== undefined; waited += 100) await sleep(100);
      for (const member of sessionMembers(pid)) killQuietly(member);
    }
    rmSync(this.#pidFile(name), { force: true });
  }

  async kill(name: string): Promise<void> {
    const pid = this.pid(name);
    if (pid === undefined) return;
    process.kill(pid, 'SIGKILL');
    while (this.pid(name) !== undefined) await sleep(10);
  }

  /** Waits until `ready` is true; fails at once, with the end of its log, when the process dies. */
  async waitFor(name: string, ready: () => Promise<boolean>, limitMs = 180_000): Promise<void> {
    const deadline = Date.now() + limitMs;
    while (!(await ready())) {
      if (this.pid(name) === undefined) throw new Error(`${name} died:\n${this.#logEnd(name)}`);
      if (Date.now() > deadline)
        throw new Error(`${name} is not ready after ${limitMs / 1000} s:\n${this.#logEnd(name)}`);
      await sleep(200);
    }
  }

  #logEnd(name: string): string {
    const file = this.logFile(name);
    return `${file}:\n${readFileSync(file, 'utf8').split('\n').slice(-25).join('\n')}`;
  }

  #pidFile(name: string): string {
    return join(this.#paths.run, `${name}.pid`);
  }
}

/** Workers and helpers that outlived the leader of their session. */
function sessionMembers(session: number): readonly number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((entry) => {
      try {
        return (
          readFileSync(`/proc/${entry}/stat`, 'utf8')
            .replace(/^.*\) /s, '')
            .split(' ')[3] === String(session)
        );
      } catch {
        return false;
      }
    })
    .map(Number);
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Whether something listens on a loopback port. */
export async function portAnswers(port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = new Socket().setTimeout(2000);
    const end = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket
      .once('connect', () => end(true))
      .once('timeout', () => end(false))
      .once('error', () => end(false))
      .connect(port, '127.0.0.1');
  });
}

/** Whether a URL gives any answer below 500. */
export async function httpAnswers(url: string): Promise<boolean> {
  try {
    return (await fetch(url, { signal: AbortSignal.timeout(10_000) })).status < 500;
  } catch {
    return false;
  }
}
