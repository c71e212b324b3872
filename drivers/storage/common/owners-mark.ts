// Which map the owners of a custom volume have on the disk, where the kernel cannot map them: an attribute of the volume's directory, which
// goes wherever the files go: into snapshots, copies and streams, and back with them. No unprivileged container can change it.
import type { Host } from '#src/host/host.ts';
import { idMapKey, type IdMapRange, readIdMapKey } from '#src/host/id-map.ts';

const NAME = 'trusted.lighter.owners';

/** null: they are not mapped. */
export async function markedOwners(host: Host, directory: string): Promise<IdMapRange | null> {
  const key = await host.attribute(directory, NAME);
  return key === undefined ? null : readIdMapKey(key);
}

/** AppError 'unsupported' where the file system cannot keep it. */
export async function markOwners(host: Host, directory: string, owners: IdMapRange | null): Promise<void> {
  if (owners === null && (await host.attribute(directory, NAME)) === undefined) return;
  await host.setAttribute(directory, NAME, idMapKey(owners));
}
