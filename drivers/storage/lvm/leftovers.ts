// What a crash left in the volume group: a swap that is finished or taken back, copies without a volume, work in progress.
import { join } from 'node:path';
import type { LogicalVolume } from '#src/host/lvm.ts';
import { parseVolume } from './names.ts';
import type { LvmParts } from './parts.ts';
import { replacedBy, replacesTag, UNFINISHED } from './tags.ts';

/** `ownToo`: for the time when nobody makes anything. */
export async function cleanLeftovers(
  parts: LvmParts,
  { ownToo = false }: { readonly ownToo?: boolean },
  signal: AbortSignal,
): Promise<void> {
  const volumes = await parts.pool.volumes(signal);
  const there = new Set(volumes.map(({ name }) => name));
  for (const volume of volumes) {
    if (!parts.names.isLeftover(volume.name, { ownToo })) await finish(parts, { volume, there }, signal);
    else if (isWanted(volume, there)) await takePlace(parts, { volume, there }, signal);
    else await remove(parts, volume.name, signal);
  }
}

interface Found {
  readonly volume: LogicalVolume;
  /** Names of all. */
  readonly there: Set<string>;
}

/** It was complete, and what it replaces is out of its way. */
function isWanted({ tags }: LogicalVolume, there: ReadonlySet<string>): boolean {
  const replaced = replacedBy(tags);
  return replaced !== undefined && !there.has(replaced);
}

async function takePlace({ pool, context }: LvmParts, { volume, there }: Found, signal: AbortSignal): Promise<void> {
  const name = replacedBy(volume.tags) ?? volume.name;
  context.log.warn('going on with a change of a volume that was cut off', { volume: name });
  await pool.lvm.rename(pool.group, volume.name, { to: name }, signal);
  await pool.lvm.untag(pool.group, [name], replacesTag(name), signal);
  there.add(name);
}

/** Tags that say no more; and snapshots of a copy that never was. */
async function finish(parts: LvmParts, { volume, there }: Found, signal: AbortSignal): Promise<void> {
  const { lvm, group } = parts.pool;
  const { name, tags } = volume;
  if (replacedBy(tags) === name) await lvm.untag(group, [name], replacesTag(name), signal);
  if (!tags.includes(UNFINISHED)) return;
  const owner = parseVolume(name)?.volume;
  if (owner && !there.has(parts.names.volume(owner))) await parts.toss(name, signal);
  else await lvm.untag(group, [name], UNFINISHED, signal);
}

async function remove(parts: LvmParts, name: string, signal: AbortSignal): Promise<void> {
  const { host } = parts.context;
  const path = join(parts.mounts.workFolder, name);
  await parts.mounts.unmount(name, path, signal);
  await host.removeTree(path);
  await parts.toss(name, signal);
}
