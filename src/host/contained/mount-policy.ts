// Which mounts of a container may be entered from outside: those whose file system cannot be made to never answer.
import { statfs } from 'node:fs/promises';
import { ContainedError, type Root } from './walk.ts';

/** File systems that a process serves, or that stand on others. A container can make them; lxcfs is the host's own. */
const UNSERVED = /^(fuse(?!\.lxcfs$)|overlay$|autofs$|9p$)/;

/** From the text of a mountinfo. The root itself is ours, whatever it is. */
export function servedMounts(mountInfo: string): Root['mounts'] {
  const ids = mountInfo.split('\n').flatMap((line) => {
    const [left = '', right = ''] = line.split(' - ');
    const [id = '', , , , target] = left.split(' ');
    const [type = ''] = right.split(' ');
    return target !== undefined && (target === '/' || !UNSERVED.test(type)) ? [id] : [];
  });
  return new Set(ids);
}

/** proc, sysfs, cgroup, cgroup2, debugfs, tracefs, securityfs: what is written there acts with the rights and in the namespaces of this process. */
const OF_KERNEL = new Set([0x9fa0, 0x62656572, 0x27e0eb, 0x63677270, 0x64626720, 0x74726163, 0x73636673]);

export async function requireStored(path: string): Promise<void> {
  const { type } = await statfs(path);
  if (OF_KERNEL.has(type)) throw new ContainedError('EPERM', 'files of the kernel are only read');
}
