// A process beside the daemon for what the daemon and its memory must not do themselves.
import { type ChildProcess, fork, type ForkOptions } from 'node:child_process';
import { getCompileCacheDir } from 'node:module';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { atNormalPriority } from '#src/lib/priority.ts';

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
/** A helper is to be small: it waits. */
export const HELPER_FLAGS = [
  '--disable-warning=ExperimentalWarning',
  '--max-semi-space-size=1',
  '--optimize-for-size',
  '--no-opt',
  '--no-maglev',
  '--no-sparkplug',
];

export interface HelperOptions {
  readonly environment?: Readonly<Record<string, string>>;
  /** A descriptor that it has as HANDED_FD, and no stream of the daemon: it may live longer. */
  readonly handed?: number;
}

export const HANDED_FD = 4;

/** The file of bin/NAME. */
export function helperEntry(name: string): string {
  // The same extension as this file: .ts from source, .js from the built package.
  return fileURLToPath(new URL(`../../../bin/${name}${extname(fileURLToPath(import.meta.url))}`, import.meta.url));
}

/** All that a helper has of an environment. */
export function helperEnvironment(): Readonly<Record<string, string>> {
  const cache = getCompileCacheDir();
  return { PATH, MALLOC_ARENA_MAX: '1', ...(cache !== undefined && { NODE_COMPILE_CACHE: cache }) };
}

/** Starts bin/NAME, which has nothing of the daemon's environment, and a channel to it. Does not keep the daemon. */
export function startHelper(name: string, { environment = {}, handed }: HelperOptions = {}): ChildProcess {
  const options: ForkOptions = {
    cwd: '/',
    execArgv: HELPER_FLAGS,
    stdio:
      handed === undefined ? ['ignore', 'ignore', 'inherit', 'ipc'] : ['ignore', 'ignore', 'ignore', 'ipc', handed],
    // Signals of the daemon's terminal are not for it: it goes by the channel.
    detached: true,
    env: { ...helperEnvironment(), ...environment },
  };
  const helper = atNormalPriority(() => fork(helperEntry(name), [], options));
  helper.unref();
  helper.channel?.unref();
  return helper;
}
