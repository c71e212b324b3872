// Log files of an instance: the console's, liblxc's, and the configuration that it was started with.
import { open, rm, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { Host } from '#src/host/host.ts';
import type { InstancePaths } from './instance-paths.ts';

/** What is shown, whatever else lies there. */
const LISTED =
  /^(lxc\.log|lxc\.log\.old|lxc\.conf|console\.log|exec_[\w-]+\.(stdout|stderr)|(snapshot|migration)_[\w.-]+\.log)$/;
const DELETABLE = /^(exec_|snapshot_|migration_)/;
/** liblxc starts a new file when one reaches 1 MB; so the last two hold everything that is kept. */
const MAX_CONSOLE_BYTES = 2 * 1024 * 1024;

export async function listLogs(host: Host, { logs }: InstancePaths): Promise<readonly string[]> {
  const names = await host.list(logs);
  return names.filter((name) => LISTED.test(name)).toSorted();
}

/** AppError 'invalid' for a name that is no log file's, 'not_found' when absent. */
export async function logFile({ logs }: InstancePaths, name: string): Promise<string> {
  if (!LISTED.test(name)) throw new AppError('invalid', `log file name ${name} not valid`);
  const path = join(logs, name);
  const found = await stat(path).catch(() => undefined);
  if (!found?.isFile()) throw new AppError('not_found', `open ${path}: no such file or directory`);
  return path;
}

export async function deleteLog({ logs }: InstancePaths, name: string): Promise<void> {
  if (name === 'lxc.log' || name === 'lxc.conf')
    throw new AppError('invalid', 'lxc.log and lxc.conf may not be deleted');
  if (!LISTED.test(name) || !DELETABLE.test(name)) throw new AppError('invalid', `log file name ${name} not valid`);
  await rm(join(logs, name), { force: true });
}

/** The last bytes of the console, over restarts. AppError 'internal' with LXD's text when it never printed anything. */
export async function readConsoleLog({ container }: InstancePaths, maxBytes = MAX_CONSOLE_BYTES): Promise<Buffer> {
  const path = container.consoleLogPath;
  const current = await tail(path, maxBytes);
  if (current === undefined) throw new AppError('internal', `open ${path}: no such file or directory`);
  if (current.length >= maxBytes) return current;
  const older = await tail(`${path}.1`, maxBytes - current.length);
  return Buffer.concat([older ?? Buffer.alloc(0), current]);
}

/** The file stays: the container's monitor appends to it. */
export async function clearConsoleLog({ container }: InstancePaths): Promise<void> {
  const path = container.consoleLogPath;
  await rm(`${path}.1`, { force: true });
  await truncate(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
  });
}

async function tail(path: string, maxBytes: number): Promise<Buffer | undefined> {
  const file = await open(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (!file) return undefined;
  try {
    const { size } = await file.stat();
    const buffer = Buffer.alloc(Math.min(size, maxBytes));
    const { bytesRead } = await file.read(buffer, 0, buffer.length, size - buffer.length);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

/** Before a start: what liblxc says from then on is kept apart. */
export async function rotateLogs(host: Host, { logs, container }: InstancePaths): Promise<void> {
  await host.makeDirectory(logs, { mode: 0o700 });
  if (await host.exists(container.logPath)) await host.rename(container.logPath, `${container.logPath}.old`);
}
