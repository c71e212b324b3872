// A volume held still for a backup: each of its snapshots, it itself, and what is nested in them, as streams that can be read again.
import { join } from 'node:path';
import { streamed } from '#src/host/streamed.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { HeldStream, VolumeRef } from '../driver.ts';
import { guidOf, ownersAt, SENT_NAME, type StreamParts } from './stream-parts.ts';

export interface Held {
  readonly volume: VolumeRef;
  readonly snapshots: readonly string[];
}

/** A snapshot or the volume, as it is sent. */
interface Source {
  readonly snapshot: string | undefined;
  /** What is sent: readonly with all that is nested in it. */
  readonly path: string;
  readonly owners: IdMapRange | null;
  /** As they shall be where they arrive. */
  readonly subvolumes: readonly { readonly path: string; readonly readonly: boolean }[];
}

/** Streams come from readonly subvolumes alone: what has writable ones in it is copied for as long as that lasts. */
export async function hold(
  parts: StreamParts,
  { volume, snapshots }: Held,
  use: (streams: readonly HeldStream[]) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const { context, places } = parts;
  await using cleanup = new Reverter(context.log); // never committed: the copies are only for the streams
  const folder = places.beside(places.volume(volume));
  cleanup.add(`subvolumes to be sent of ${volume.name}`, () => places.discard(folder));
  await context.host.makeDirectory(folder, { mode: 0o700, fresh: true });
  const sources: Source[] = [];
  for (const [index, snapshot] of snapshots.entries()) {
    signal.throwIfAborted();
    const from = places.snapshot(volume, snapshot);
    const copy = (await context.host.btrfs.hasNested(from)) ? join(folder, String(index)) : undefined;
    sources.push(await sourceOf(parts, volume, { from, copy, snapshot }));
  }
  sources.push(await sourceOf(parts, volume, { from: places.volume(volume), copy: join(folder, SENT_NAME) }));
  const streams: HeldStream[] = [];
  for (const [index, source] of sources.entries()) {
    streams.push(...(await streamsOf(parts, source, { before: sources[index - 1], signal })));
  }
  await use(streams);
}

async function sourceOf(
  { context: { host } }: StreamParts,
  { kind }: VolumeRef,
  { from, copy, snapshot }: { readonly from: string; readonly copy: string | undefined; readonly snapshot?: string },
): Promise<Source> {
  const path = copy ?? from;
  if (copy !== undefined) await host.btrfs.snapshot(from, copy, { readonly: true });
  // In the copy nobody renames directories.
  const nested = copy === undefined ? [] : await host.btrfs.nested(copy);
  for (const one of nested) if (!one.readonly) await host.btrfs.setReadonly(join(path, one.path), true);
  return {
    snapshot,
    path,
    owners: await ownersAt(host, kind, path),
    subvolumes: [
      { path: '/', readonly: snapshot !== undefined },
      ...nested.map((one) => ({ path: `/${one.path}`, readonly: one.readonly })),
    ],
  };
}

async function streamsOf(
  { context: { host } }: StreamParts,
  { path: root, snapshot, owners, subvolumes }: Source,
  { before, signal }: { readonly before: Source | undefined; readonly signal: AbortSignal },
): Promise<readonly HeldStream[]> {
  const bases = new Set(before?.subvolumes.map(({ path }) => path));
  return Promise.all(
    subvolumes.map(async ({ path, readonly }) => {
      const since = before && bases.has(path) ? ['-p', join(before.path, path)] : [];
      const source = join(root, path);
      return {
        snapshot,
        path,
        readonly,
        owners,
        guid: await guidOf(host, source),
        read: (use: (stream: NodeJS.ReadableStream) => Promise<void>) => {
          return streamed(host, { argv: ['btrfs', 'send', '-q', ...since, source], use, signal });
        },
      };
    }),
  );
}
