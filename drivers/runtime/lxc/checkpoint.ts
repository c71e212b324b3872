// The state of a container's processes on disk and back: CRIU, through lxc-checkpoint, which finds it in PATH by its name.
import { dirname, join } from 'node:path';
import { CommandError } from '#src/host/command-error.ts';
import type { Argv, Host } from '#src/host/host.ts';
import { readIfPresent } from '#src/host/read-if-present.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { RuntimeCheckpoint, RuntimeContainer } from '../driver.ts';
import { SHARED_MOUNTS_INSIDE } from './config.ts';

/** CRIU that is killed leaves what it has stopped in a state that nobody mends: only one that hangs is worth that. */
const DUMP_LIMIT_MS = 3_600_000;
const RESTORE_LIMIT_MS = 1_800_000;
const CHECK_MS = 30_000;
const LAST_LINES = 3;
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
/** Files that are deleted and still open are kept up to this size; LXD's number. */
const GHOST_LIMIT_BYTES = 256 << 20;
/** What the mounts of the daemon are called in a dump: the name of the container is in their path, and may change. */
const SHARED_MOUNTS_KEY = 'lighter-mounts';
/** What CRIU begins its lines with: the time, and the process that speaks. */
const PREFIX = /^(?:\([\d.]+\)\s*)?(?:\d+:\s*)?Error /u;
/** CRIU wants more descriptors than it may have; and the end, which we know of. */
const IDLE_ERRORS = /RLIMIT_NOFILE for self|(?:Dumping|Restoring) FAILED/u;
/** Where guests watch files (inotify). On overlays the kernel does not tell their names: CRIU looks for them here. */
const WATCHED = ['/etc', '/run', '/usr/share/dbus-1', '/usr/local/share', '/usr/lib/systemd', '/var/spool', '/root'];
const OPTIONS_FILE = 'criu.conf';
const ERRORS_FILE = 'lxc-checkpoint.err';
const END_OF_DUMP = 'stats-dump';

export interface CheckpointParts {
  readonly host: Host;
  readonly containersPath: string;
  /** Directory of the host whose mounts show up in the container. */
  readonly sharedMounts: string;
}

/** AppError 'unsupported' with what CRIU says. */
export async function checkCriu(host: Pick<Host, 'run'>, criu: string, signal: AbortSignal): Promise<void> {
  try {
    await host.run([criu, 'check'], { signal, timeoutMs: CHECK_MS });
  } catch (cause) {
    signal.throwIfAborted();
    if (!(cause instanceof CommandError)) throw cause;
    throw new AppError('unsupported', reasonOf(cause, criu), { cause });
  }
}

function reasonOf({ cause, message, stderr }: CommandError, criu: string): string {
  if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') {
    return criu.includes('/') ? `There is no CRIU at ${criu}` : "CRIU isn't installed";
  }
  const said = lastLines(stderr.split('\n'));
  return `CRIU does not work on this host: ${said === '' ? message : said}`;
}

function lastLines(lines: readonly string[]): string {
  return wordsOf(lines).slice(-LAST_LINES).join('; ');
}

function wordsOf(lines: readonly string[]): readonly string[] {
  return lines.map((line) => line.trim()).filter((line) => line !== '');
}

/** Not cut short by anybody: see above. */
export async function dump(
  parts: CheckpointParts,
  container: RuntimeContainer,
  { directory, criu, stop }: RuntimeCheckpoint & { readonly stop: boolean },
): Promise<void> {
  const { host } = parts;
  await host.makeDirectory(directory, { mode: 0o700 });
  await writeOptions(host, directory, [
    ['ghost-limit', String(GHOST_LIMIT_BYTES)],
    ['external', `mnt[${SHARED_MOUNTS_INSIDE}]:${SHARED_MOUNTS_KEY}`],
    ...WATCHED.map((path) => ['irmap-scan-path', path] as const),
  ]);
  try {
    await host.run(command(parts, container, directory, stop ? ['--stop'] : []), {
      timeoutMs: DUMP_LIMIT_MS,
      lasting: true,
      env: environment(directory, criu),
    });
  } catch (cause) {
    const why = await failure(host, join(directory, 'dump.log'), cause);
    throw new AppError('internal', `CRIU could not save the state of the instance: ${why}`, { cause });
  } finally {
    await keepLog(host, container, directory, 'dump');
  }
}

/** As lxc-start does: resolves when the container runs. */
export async function restore(
  parts: CheckpointParts,
  container: RuntimeContainer,
  { directory, criu }: RuntimeCheckpoint,
  signal: AbortSignal,
): Promise<void> {
  const { host } = parts;
  const errorFile = join(directory, ERRORS_FILE);
  await writeOptions(host, directory, [['external', `mnt[${SHARED_MOUNTS_KEY}]:${parts.sharedMounts}`]]);
  await host.writeFile(errorFile, '', { mode: 0o600 });
  try {
    await host.run(command(parts, container, directory, ['--restore', '--daemon']), {
      signal,
      timeoutMs: RESTORE_LIMIT_MS,
      lasting: true,
      // What becomes the monitor keeps it open.
      errorFile,
      env: environment(directory, criu),
    });
  } catch (cause) {
    signal.throwIfAborted();
    const why = await failure(host, join(directory, 'restore.log'), cause, errorFile);
    throw new AppError('internal', `CRIU could not restore the state of the instance: ${why}`, { cause });
  } finally {
    await keepLog(host, container, directory, 'restore');
  }
}

/** Whether a dump that was to stop its container has done so, and is all there: CRIU writes this file last. */
export function isWhole(host: Pick<Host, 'exists'>, directory: string): Promise<boolean> {
  return host.exists(join(directory, END_OF_DUMP));
}

function command(
  { containersPath }: CheckpointParts,
  { name, configPath }: RuntimeContainer,
  directory: string,
  what: readonly string[],
): Argv {
  return ['lxc-checkpoint', '-n', name, '-P', containersPath, `--rcfile=${configPath}`, '-D', directory, ...what];
}

function environment(directory: string, criu: string): Readonly<Record<string, string>> {
  const path = criu.includes('/') ? `${dirname(criu)}:${PATH}` : PATH;
  return { PATH: path, CRIU_CONFIG_FILE: join(directory, OPTIONS_FILE) };
}

/** Options that lxc-checkpoint does not pass on. */
async function writeOptions(host: Host, directory: string, options: readonly (readonly [string, string])[]) {
  const lines = options.map(([name, value]) => `${name} ${/\s/u.test(value) ? `"${value}"` : value}\n`);
  await host.writeFile(join(directory, OPTIONS_FILE), lines.join(''), { mode: 0o600 });
}

/** CRIU's own words are the best; when it did not get that far, liblxc's. */
async function failure(host: Host, log: string, cause: unknown, errorFile?: string): Promise<string> {
  const errors = ((await readIfPresent(host, log)) ?? '').split('\n').filter((line) => line.includes('Error ('));
  const own = wordsOf(errors.filter((line) => !IDLE_ERRORS.test(line))).map((line) => line.replace(PREFIX, ''));
  // What comes after the first ones follows from them.
  if (own.length > 0) return own.slice(0, LAST_LINES).join('; ');
  const stderr = errorFile === undefined ? errorOutput(cause) : await readIfPresent(host, errorFile);
  const said = lastLines((stderr ?? '').split('\n').map((line) => line.replace(/^lxc-checkpoint: /u, '')));
  return said === '' ? messageOf(cause) : said;
}

function errorOutput(cause: unknown): string {
  return cause instanceof CommandError ? cause.stderr : '';
}

/** Beside the other logs of the instance, under LXD's names. */
async function keepLog(host: Host, { logPath }: RuntimeContainer, directory: string, kind: 'dump' | 'restore') {
  const text = await readIfPresent(host, join(directory, `${kind}.log`));
  if (text === undefined) return;
  const time = new Date().toISOString().replace(/:|\.\d+/gu, '');
  await host.writeFile(join(dirname(logPath), `snapshot_${kind}_${time}.log`), text, { mode: 0o600 });
}
