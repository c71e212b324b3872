// The two user namespaces of a container whose root file system is served by a process.
//
// FUSE lets in only who is in the user namespace that a file system was mounted from, or in one below it, and translates ids by that
// namespace. So the mount is made in an outer one that has the container's ids and, besides, root of the host (who could do nothing
// there without an id), and the container gets an inner one of it, which has its own ids alone.
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { AppError } from '#src/lib/errors.ts';
import type { Argv, Host } from '../host.ts';
import { type IdMapRange, type IdRange, mapLines, rangesOf, toContainer } from '../id-map.ts';

const HELPER_LIMIT_MS = 10_000;
/** What root of the host is in the outer namespace: no container has it, and it is the last one that can be. */
const HOSTS_ROOT = 4_294_967_294;

export interface ServedNamespaces extends AsyncDisposable {
  /** Paths for setns(2), until disposed. */
  readonly outer: string;
  readonly inner: string;
}

/** Held by two processes that do nothing else. */
export async function makeNamespaces(host: Pick<Host, 'start' | 'run'>, map: IdMapRange): Promise<ServedNamespaces> {
  await using held = new AsyncDisposableStack();
  const outer = held.use(await newNamespace(host, []));
  for (const kind of ['uid', 'gid'] as const) await writeFile(`/proc/${outer.pid}/${kind}_map`, outerLines(map, kind));
  const within = asRootOf(outer.path);
  const inner = held.use(await newNamespace(host, within));
  for (const kind of ['uid', 'gid'] as const) {
    // Only somebody of the namespace around it may write a map.
    await host.run([...within, 'tee', `/proc/${inner.pid}/${kind}_map`], {
      input: innerLines(map, kind),
      timeoutMs: HELPER_LIMIT_MS,
    });
  }
  const all = held.move();
  return { outer: outer.path, inner: inner.path, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

/** The beginning of a command that runs as root of the namespace. */
export function asRootOf(namespace: string): Argv {
  return ['nsenter', `--user=${namespace}`, '--setuid', '0', '--setgid', '0', '--'];
}

function outerLines(map: IdMapRange, kind: IdRange['kind']): string {
  const own = mapLines(map, kind);
  return toContainer(map, kind, 0) === undefined ? `${own}${HOSTS_ROOT} 0 1\n` : own;
}

function innerLines(map: IdMapRange, wanted: IdRange['kind']): string {
  const ranges = rangesOf(map).filter(({ kind }) => kind === wanted);
  return ranges.map(({ containerId, size }) => `${containerId} ${containerId} ${size}\n`).join('');
}

interface HeldNamespace extends AsyncDisposable {
  readonly pid: number;
  readonly path: string;
}

/** cat(1), by echoing, proves that it is inside. */
async function newNamespace(host: Pick<Host, 'start'>, within: readonly string[]): Promise<HeldNamespace> {
  const argv: Argv = ['env', ...within, 'unshare', '--user', 'cat'];
  const helper = host.start(argv, { timeoutMs: HELPER_LIMIT_MS });
  const end = async (): Promise<void> => {
    helper.stdin.end();
    await helper.done.catch(() => {}); // it has no say in the outcome
  };
  try {
    helper.stdin.write('\n');
    await Promise.race([once(helper.stdout, 'data'), helper.done]);
    return { pid: helper.pid, path: `/proc/${helper.pid}/ns/user`, [Symbol.asyncDispose]: end };
  } catch (cause) {
    await end();
    throw new AppError('internal', 'cannot make a user namespace', { cause });
  }
}
