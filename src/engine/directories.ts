// The directories of $LIGHTER_DIR, made before anything else.
import type { Host } from '#src/host/host.ts';
import { kindOf } from '#src/lib/errors.ts';
import { readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { enginePaths } from './context.ts';
import type { EnginePaths } from './types.ts';

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
  const { images, disks, logs, devices, backups, snapshots, instances } = paths;
  for (const path of [images, disks, logs, devices, backups, snapshots, instances, dirname(paths.database)]) {
    if (!(await isLink(host, path))) await host.makeDirectory(path, { mode: PRIVATE });
  }
  await moveHomes(paths);
}

/** Earlier releases had the directories of instances where their links are now. */
async function moveHomes({ containers, instances }: Pick<EnginePaths, 'containers' | 'instances'>): Promise<void> {
  const moved = new Set(await readdir(instances));
  for (const entry of await readdir(containers, { withFileTypes: true })) {
    if (!entry.isDirectory() || moved.has(entry.name)) continue;
    const home = join(instances, entry.name);
    await rm(join(containers, entry.name, 'rootfs'), { force: true }); // a link
    await rename(join(containers, entry.name), home);
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
