// What an engine leaves mounted when it ends, as LXD does: taken down before its directory is removed.
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Detaches everything that is mounted below `root`. */
export async function unmountBelow(root: string): Promise<void> {
  const table = await readFile('/proc/self/mounts', 'utf8');
  const points = table.split('\n').map((line) => line.split(' ')[1] ?? '');
  for (const point of points.filter((one) => one.startsWith(`${root}/`)).toReversed()) {
    await run('umount', ['-l', point]);
  }
}
