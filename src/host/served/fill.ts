// A fresh ext4 with a copy of a tree, made by mke2fs in one pass: nothing of it goes through a mount.
import type { Log } from '#src/lib/log.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { Host } from '../host.ts';
import type { IdMapRange } from '../id-map.ts';
import { Sandbox } from '../unpack/sandbox.ts';
import { deviceStatus, exposeDevice } from './device.ts';
import { alone } from './jail.ts';
import { stopServing } from './served-file-system.ts';

export const LABEL = 'lighter-root';

export interface FillRequest {
  readonly source: string;
  /** Of its own; made and removed. */
  readonly directory: string;
  /** What is copied: its files as a container with `idMap` owns them. */
  readonly tree: {
    readonly path: string;
    /** null: as they are in the container. */
    readonly owners: IdMapRange | null;
  };
  readonly idMap: IdMapRange;
}

/** What was on the device is lost. */
export async function fillDevice(
  { host, log }: { readonly host: Host; readonly log: Log },
  { source, directory, tree, idMap }: FillRequest,
  signal: AbortSignal,
): Promise<void> {
  await stopServing({ host, log }, directory);
  await using cleaning = new Reverter(log); // never committed
  cleaning.add('device', () => stopServing({ host, log }, directory));
  await host.makeDirectory(directory, { mode: 0o711 });
  const { sizeBytes } = await deviceStatus(source);
  const { path, isFile } = await exposeDevice(host, source, { directory, name: 'disk', ids: idMap });
  // The tools run as the container's root: what they make of hostile names is the container's own.
  using view = tree.owners === null ? await host.mounts.openMapped(tree.path, idMap) : undefined;
  const place = { directory: view?.path ?? tree.path, owners: idMap };
  using sandbox = await Sandbox.owning(host, place, { fileBytes: sizeBytes, signal });
  await sandbox.run([...alone({ path, isFile }), 'mkfs.ext4', '-q', '-F', '-L', LABEL, '-d', '.', path]);
}
