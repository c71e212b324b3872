// Where a walk over the tree of a volume ends: at what is mounted in it.
import type { Host } from '#src/host/host.ts';

/**
 * Options for rsync and tar. One file system would be too little: subvolumes that are nested in a volume look like others and are part
 * of it.
 */
export async function borderOptions(host: Host, path: string): Promise<readonly string[]> {
  const mounted = await host.mounts.mountsUnder(path);
  return mounted.some((target) => target !== path) ? ['--one-file-system'] : [];
}
