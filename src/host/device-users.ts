// Which programs have a block device open, or mapped into their memory. The kernel counts them and tells nobody: it is read from /proc.
import { readdirSync, readlinkSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { setImmediate as turn } from 'node:timers/promises';
import type { Host } from './host.ts';
import { readKernelFile } from './kernel-files.ts';

const LIMIT_MS = 30_000;
/** Paths for one command. */
const AT_ONCE = 2000;

interface Open {
  readonly pid: string;
  readonly link: string;
}

/**
 * Their names, each once. Not seen: a descriptor that is on its way from one process to another, and one that io_uring alone has.
 *
 * Files of containers are among what is looked at, and whoever serves one may never answer: stat(1) asks nobody (`--cached=always`),
 * and is a process that can be killed.
 */
export async function deviceUsers(
  host: Pick<Host, 'run'>,
  device: string,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const { rdev } = await stat(device);
  const wanted = `${(Math.floor(rdev / 256) % 4096).toString(16)}:${((rdev % 256) + Math.floor(rdev / 2 ** 20) * 256).toString(16)}`;
  const open = await openFiles(signal);
  const names = new Set<string>();
  for (let start = 0; start < open.length; start += AT_ONCE) {
    const part = open.slice(start, start + AT_ONCE);
    const argv = ['stat', '--cached=always', '--dereference', '--printf=%n %F %t:%T\\n', '--', ...part.map(linkOf)];
    // what ended meanwhile is an error to it
    const run = { signal, timeoutMs: LIMIT_MS, okExitCodes: [0, 1] };
    const { stdout } = await host.run(argv as [string, ...string[]], run);
    for (const line of stdout.split('\n')) {
      if (!line.endsWith(` block special file ${wanted}`)) continue;
      const pid = line.split('/')[2] ?? '';
      names.add((readKernelFile(`/proc/${pid}/comm`) ?? pid).trim());
    }
  }
  return [...names];
}

const linkOf = ({ link }: Open): string => link;

async function openFiles(signal: AbortSignal): Promise<readonly Open[]> {
  const found: Open[] = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    signal.throwIfAborted();
    await turn();
    found.push(...descriptorsOf(pid), ...mappingsOf(pid));
  }
  return found;
}

/** Sockets, pipes and the like are no devices. */
function descriptorsOf(pid: string): readonly Open[] {
  return inFolder(`/proc/${pid}/fd`).flatMap((name) => {
    const link = `/proc/${pid}/fd/${name}`;
    return targetOf(link).startsWith('/') ? [{ pid, link }] : [];
  });
}

/** A private mapping writes nothing. */
function mappingsOf(pid: string): readonly Open[] {
  const lines = (readKernelFile(`/proc/${pid}/maps`) ?? '').split('\n');
  return lines.flatMap((line) => {
    const shared = /^(?<range>[0-9a-f]+-[0-9a-f]+) ...s .* \//.exec(line);
    return shared ? [{ pid, link: `/proc/${pid}/map_files/${shared.groups?.['range']}` }] : [];
  });
}

/** Processes come and go. */
function inFolder(path: string): readonly string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function targetOf(link: string): string {
  try {
    return readlinkSync(link);
  } catch {
    return '';
  }
}
