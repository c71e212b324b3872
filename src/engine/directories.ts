// The directories of $LIGHTER_DIR, made before anything else.
import type { Host } from '#src/host/host.ts';
import { kindOf } from '#src/lib/errors.ts';
import { dirname, join } from 'node:path';
import { enginePaths } from './context.ts';

/** Containers' ids pass through these on the way to their root, the user of DHCP servers on the way to their files. */
const PASSABLE = 0o711;
const PRIVATE = 0o700;
/** Mounted into containers. */
const READABLE = 0o755;

export async function makeDirectories(host: Host, root: string): Promise<void> {
  const paths = enginePaths(root);
  const passable = [root, paths.storagePools, paths.containers, paths.blocks, join(root, 'networks')];
  for (const path of passable) await host.makeDirectory(path, { mode: PASSABLE });
  await host.makeDirectory(join(root, 'devlxd'), { mode: READABLE });
  const { images, disks, logs, devices, backups, snapshots } = paths;
  for (const path of [images, disks, logs, devices, backups, snapshots, dirname(paths.database)]) {
    if (!(await isLink(host, path))) await host.makeDirectory(path, { mode: PRIVATE });
  }
}

/** Into a volume that is not mounted yet. */
async function isLink(host: Host, path: string): Promise<boolean> {
  try {
    return (await host.status(path)).kind === 'link';
  } catch (error) {
    if (kindOf(error) === 'not_found') return false;
    throw error;
  }
}
