// What an instance keeps beside its root and a snapshot keeps, too: the metadata of its image, and the templates.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Host } from '#src/host/host.ts';

const KEPT = ['metadata.yaml', 'templates'];

/** `to` is made; what it had of these is replaced. */
export async function copySnapshotFiles(host: Host, from: string, to: string): Promise<void> {
  await host.makeDirectory(to, { mode: 0o700 });
  for (const name of KEPT) {
    await rm(join(to, name), { recursive: true, force: true });
    if (await host.exists(join(from, name))) await host.copyTree(join(from, name), join(to, name));
  }
}
