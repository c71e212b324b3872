// Changes the owners in a subvolume that nobody uses, and in what is nested in it: for kernels that cannot map ids.
import { join } from 'node:path';
import type { Host, OwnerShift } from '#src/host/host.ts';

/** `tree`: the part of the subvolume whose own files change. */
export async function shiftWithNested(
  host: Pick<Host, 'btrfs' | 'shiftOwners'>,
  { subvolume, tree = subvolume }: { readonly subvolume: string; readonly tree?: string },
  shift: OwnerShift,
  signal: AbortSignal,
): Promise<void> {
  await host.shiftOwners(tree, shift, signal);
  for (const { path, readonly } of await host.btrfs.nested(subvolume)) {
    const nested = join(subvolume, path);
    if (readonly) await host.btrfs.setReadonly(nested, false);
    await host.shiftOwners(nested, shift, signal);
    if (readonly) await host.btrfs.setReadonly(nested, true);
  }
}
