// Setup of the unit and contract tests: their files share a process, so each must leave it as it was; one that does not fails.
import { isDeepStrictEqual } from 'node:util';
import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, vi } from 'vitest';

const EVENTS = [
  'SIGHUP',
  'SIGINT',
  'SIGTERM',
  'SIGUSR1',
  'SIGUSR2',
  'SIGCHLD',
  'warning',
  'beforeExit',
  'exit',
] as const;

const realSetTimeout = globalThis.setTimeout;
const realDate = globalThis.Date;
const realFetch = globalThis.fetch;

const before = {
  'process.env': { ...process.env },
  'working directory': process.cwd(),
  umask: process.umask(),
  listeners: listeners(),
};

function listeners(): Record<string, number> {
  return Object.fromEntries(EVENTS.map((event) => [event, process.listenerCount(event)]));
}

/** Some are more than at the start; fewer are another file's, whose last child ended late. */
function hasMoreListeners(): boolean {
  return Object.entries(listeners()).some(([event, count]) => count > (before.listeners[event] ?? 0));
}

/** What differs from the start of the file, each by its name. */
function changed(): string[] {
  const now: typeof before = {
    'process.env': { ...process.env },
    'working directory': process.cwd(),
    umask: process.umask(),
    listeners: hasMoreListeners() ? listeners() : before.listeners,
  };
  const names = (Object.keys(before) as (keyof typeof before)[]).filter(
    (key) => !isDeepStrictEqual(before[key], now[key]),
  );
  const fake = vi.isFakeTimers() || globalThis.setTimeout !== realSetTimeout || globalThis.Date !== realDate;
  return [...names, ...(fake ? ['timers'] : []), ...(globalThis.fetch === realFetch ? [] : ['fetch'])];
}

/** For the files that come after; listeners are known only by number and stay. */
function restore(): void {
  vi.useRealTimers();
  vi.restoreAllMocks();
  process.chdir(before['working directory']);
  process.umask(before.umask);
  for (const key of Object.keys(process.env)) if (!(key in before['process.env'])) delete process.env[key];
  Object.assign(process.env, before['process.env']);
  globalThis.fetch = realFetch;
}

afterAll(async () => {
  // children that were just killed are listened for until they are reaped
  for (const begin = performance.now(); hasMoreListeners() && performance.now() - begin < 3000; ) await pause(20);
  const left = changed();
  restore();
  if (left.length > 0)
    throw new Error(`the tests of this file change the process that others run in: ${left.join(', ')}`);
});
