// A FUSE file system that nobody serves yet, mounted from within a user namespace: its ids are that namespace's.
import { closeSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { AppError } from '#src/lib/errors.ts';
import { liftMount } from '../container-mounts.ts';
import type { Host } from '../host.ts';
import { descriptorOf, openProcess } from '../kernel-descriptors.ts';
import { attachTree } from '../kernel.ts';
import { asRootOf } from './namespaces.ts';

const LIMIT_MS = 20_000;
const DEVICE_FD = 3;
/** A fixed text with arguments: what opens the device and what mounts it must be one process, in that namespace. */
const MOUNT = `exec ${DEVICE_FD}<>/dev/fuse; mount -i -t fuse -o "$1,fd=${DEVICE_FD}" "$2" "$3" || exit 1; echo mounted; read -r _; exit 0`;
const OPTIONS = 'rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions';
const ADMIN_ACCESS = '/sys/module/fuse/parameters/allow_sys_admin_access';

/**
 * Mounts on `target`, an empty directory of the host, and returns the descriptor by which whoever has it serves the mount; the caller
 * closes it. Until then, and for ever after the last one of them is closed, every access waits or fails.
 */
export async function mountFuse(
  host: Pick<Host, 'start' | 'mounts'>,
  { name, target, namespace }: { readonly name: string; readonly target: string; readonly namespace: string },
): Promise<number> {
  const apart = ['unshare', '--mount', '--propagation', 'private', 'setpriv', '--no-new-privs'] as const;
  const argv = [...asRootOf(namespace), ...apart, 'sh', '-c', MOUNT, 'sh', OPTIONS, name, target] as const;
  const mounter = host.start(argv, { timeoutMs: LIMIT_MS });
  try {
    await said(mounter.stdout, mounter.done);
    const process = openProcess(mounter.pid);
    const tree = await liftMount(target, mounter.pid);
    try {
      const device = descriptorOf(process, DEVICE_FD);
      await attachTree(tree, target);
      return device;
    } finally {
      closeSync(process);
      closeSync(tree);
    }
  } catch (cause) {
    throw new AppError('internal', `cannot mount a FUSE file system on ${target}`, { cause });
  } finally {
    mounter.stdin.end();
    await mounter.done.catch(() => {}); // what it had to say is above
  }
}

async function said(output: NodeJS.ReadableStream, done: Promise<unknown>): Promise<void> {
  const line = new Promise<void>((resolve) => output.once('data', () => resolve()));
  await Promise.race([line, done.then(() => Promise.reject(new AppError('internal', 'the mounter ended early')))]);
}

/**
 * Lets root of the host into FUSE file systems that were mounted from a user namespace, which is a setting of the whole kernel since
 * Linux 6.2. AppError 'unsupported' on an older one.
 */
export async function admitRoot(host: Pick<Host, 'writeFile'>): Promise<boolean> {
  const now = await readFile(ADMIN_ACCESS, 'utf8').catch((cause: unknown) => {
    const text = 'A root on a device of the host needs FUSE of Linux 6.2 or later (allow_sys_admin_access)';
    throw new AppError('unsupported', text, { cause });
  });
  if (now.trim() === 'Y') return false;
  await host.writeFile(ADMIN_ACCESS, 'Y');
  return true;
}
