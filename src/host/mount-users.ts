// Which programs use a mounted file system, without asking whoever serves it: it may be hostile, or gone.
import { readdirSync, readlinkSync } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import { readKernelFile } from './kernel-files.ts';
import { parseMountInfo } from './mount-info.ts';

/**
 * Their names, each once: those that have a file of it open or mapped, or work in one of its directories. `target`: where it is mounted on
 * this host; those that have it are in other mount namespaces.
 */
export async function mountUsers(target: string, signal: AbortSignal): Promise<readonly string[]> {
  const device = parseMountInfo(readKernelFile('/proc/self/mountinfo') ?? '').findLast(
    (entry) => entry.target === target,
  )?.device;
  if (device === undefined) return [];
  const mounts = new Map<string, ReadonlySet<string>>();
  const names = new Set<string>();
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    signal.throwIfAborted();
    await turn();
    const namespace = linkOf(`/proc/${pid}/ns/mnt`);
    if (namespace === '') continue;
    const known = mounts.get(namespace) ?? mountsOf(pid, device);
    mounts.set(namespace, known);
    if (known.size > 0 && uses(pid, device, known)) names.add((readKernelFile(`/proc/${pid}/comm`) ?? pid).trim());
  }
  return [...names];
}

/** Numbers and places of the mounts of that file system which a process sees. */
function mountsOf(pid: string, device: string): ReadonlySet<string> {
  const table = parseMountInfo(readKernelFile(`/proc/${pid}/mountinfo`) ?? '');
  return new Set(table.flatMap((entry) => (entry.device === device ? [entry.id, entry.target] : [])));
}

function uses(pid: string, device: string, mounts: ReadonlySet<string>): boolean {
  return (
    ['cwd', 'root', 'exe'].some((name) => isBelow(linkOf(`/proc/${pid}/${name}`), mounts)) ||
    hasOpen(pid, mounts) ||
    hasMapped(pid, device)
  );
}

function isBelow(path: string, mounts: ReadonlySet<string>): boolean {
  return [...mounts].some((target) => target.startsWith('/') && `${path}/`.startsWith(`${target}/`));
}

function hasOpen(pid: string, mounts: ReadonlySet<string>): boolean {
  return namesIn(`/proc/${pid}/fdinfo`).some((name) => {
    const id = /^mnt_id:\s*(?<id>\d+)$/m.exec(readKernelFile(`/proc/${pid}/fdinfo/${name}`) ?? '')?.groups?.['id'];
    return id !== undefined && mounts.has(id);
  });
}

/** There devices are hexadecimal. */
function hasMapped(pid: string, device: string): boolean {
  const [major = 0, minor = 0] = device.split(':').map(Number);
  const text = [major, minor].map((number) => number.toString(16).padStart(2, '0')).join(':');
  return (readKernelFile(`/proc/${pid}/maps`) ?? '').includes(` ${text} `);
}

/** Processes come and go. */
function namesIn(path: string): readonly string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}
