// Copies a volume with its snapshots to another place: by the driver inside one pool; between two as streams, or file by file.
import type { IdMapRange, MountedRoot, NewVolume, StorageDriver, VolumeRef } from '#drivers/storage/driver.ts';
import type { Host } from '#src/host/host.ts';
import { sameIdMap } from '#src/host/id-map.ts';
import type { Log } from '#src/lib/log.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { EXACT_TIMES, limitArgs, OWN_XATTRS } from '../migration/rsync.ts';
import { sendNested } from './send-nested.ts';
import { borderOptions } from './tree-borders.ts';

const COPY_LIMIT_MS = 24 * 3600_000;
const UNDO_LIMIT_MS = 120_000;

export interface CopyMachine {
  readonly host: Host;
  readonly log: Log;
}

/** Where the files come from. */
export interface CopySource {
  readonly storage: StorageDriver;
  readonly volume: VolumeRef;
  readonly idMap: IdMapRange | null;
  /** Copied instead of the volume as it is now. */
  readonly snapshot?: string;
  /** Somebody else needs the volume's mount: it is not taken down afterwards. */
  readonly isInUse?: boolean;
  /** Of the pool, as rsync reads it. */
  readonly bwlimit?: string;
}

export interface CopyTarget {
  readonly storage: StorageDriver;
  readonly volume: NewVolume;
}

/** Makes the target, with copies of the named snapshots in that order. A failure leaves nothing of it. */
export async function copyVolume(
  machine: CopyMachine,
  {
    from,
    to,
    snapshots,
  }: { readonly from: CopySource; readonly to: CopyTarget; readonly snapshots: readonly string[] },
  signal: AbortSignal,
): Promise<void> {
  if (from.storage === to.storage && to.storage.copyVolume) {
    const only = from.snapshot === undefined ? {} : { snapshot: from.snapshot };
    return to.storage.copyVolume({ from: from.volume, ...only, snapshots, to: to.volume }, signal);
  }
  await using revert = new Reverter(machine.log);
  await to.storage.createVolume(to.volume, signal);
  revert.add('volume', () => to.storage.deleteVolume(to.volume, AbortSignal.timeout(UNDO_LIMIT_MS)));
  if (await sendVolume(machine, { from, to, snapshots }, signal)) return revert.commit();
  const target = { storage: to.storage, volume: to.volume, idMap: to.volume.idMap };
  for (const snapshot of snapshots) {
    await syncVolume(machine, { from: { ...from, snapshot }, to: target }, signal);
    await to.storage.createSnapshot(to.volume, snapshot, signal);
  }
  await syncVolume(machine, { from, to: target }, signal);
  revert.commit();
}

/** From one pool to another of its kind, as streams; false: they cannot. */
async function sendVolume(
  { log }: Pick<CopyMachine, 'log'>,
  {
    from,
    to,
    snapshots,
  }: { readonly from: CopySource; readonly to: CopyTarget; readonly snapshots: readonly string[] },
  signal: AbortSignal,
): Promise<boolean> {
  const receiver = to.storage.streams;
  const sender = from.storage.streams;
  if (!sender || !receiver || sender.format !== receiver.format) return false;
  if (!(await sender.canSend(from.volume, signal))) {
    if (!sender.nests) return false;
    const copy = { sender, receiver, from: from.volume, to: to.volume, snapshots, only: from.snapshot };
    await sendNested(copy, signal);
    return true;
  }
  const compress = (await sender.compresses()) && (await receiver.compresses());
  const { volume } = from;
  let base: string | undefined;
  for (const snapshot of [...snapshots, undefined]) {
    const owners = await ownersOf(from, snapshot, { log, signal });
    const what = { volume, base, compress, snapshot: snapshot ?? from.snapshot, asVolume: snapshot === undefined };
    const arriving = { volume: to.volume, base, owners, snapshot };
    await sender.send(what, (stream) => receiver.receive(arriving, stream, signal), signal);
    base = snapshot ?? base;
  }
  return true;
}

/** Of the files in a volume, or in one of its snapshots. */
export async function ownersOf(
  from: CopySource,
  snapshot: string | undefined,
  { log, signal }: { readonly log: Log; readonly signal: AbortSignal },
): Promise<IdMapRange | null> {
  await using mounts = new Reverter(log); // never committed: only a look
  const source = snapshot === undefined ? from : { ...from, snapshot };
  return (await mountForReading(source, mounts, signal)).owners;
}

export interface Sync {
  readonly from: CopySource;
  readonly to: Omit<CopySource, 'snapshot' | 'isInUse' | 'bwlimit'>;
}

/** Makes the files of the target those of the source. Both are mounted while it lasts; a mounted source stays so. */
export async function syncVolume(machine: CopyMachine, { from, to }: Sync, signal: AbortSignal): Promise<void> {
  await using mounts = new Reverter(machine.log); // never committed: the mounts are only for the copy
  const source = await mountForReading(from, mounts, signal);
  const target = await to.storage.mountVolume(to.volume, to.idMap, signal);
  mounts.add('target', () => to.storage.unmountVolume(to.volume, AbortSignal.timeout(UNDO_LIMIT_MS)));
  await syncTrees(machine.host, { source, target, options: limitArgs(from) }, signal);
}

/** `mounts` takes it down again, unless it was mounted before. */
export async function mountForReading(
  { storage, volume, idMap, snapshot, isInUse = false }: CopySource,
  mounts: Reverter,
  signal: AbortSignal,
): Promise<MountedRoot> {
  const undo = (): AbortSignal => AbortSignal.timeout(UNDO_LIMIT_MS);
  if (snapshot !== undefined) {
    const root = await storage.mountSnapshot({ volume, snapshot, idMap }, signal);
    mounts.add('snapshot', () => storage.unmountSnapshot(volume, snapshot, undo()));
    return root;
  }
  const root = await storage.mountVolume(volume, idMap, signal);
  if (!isInUse) mounts.add('source', () => storage.unmountVolume(volume, undo()));
  return root;
}

interface Trees {
  readonly source: MountedRoot;
  readonly target: MountedRoot;
  readonly options: readonly string[];
}

async function syncTrees(
  host: Host,
  { source: from, target: to, ...trees }: Trees,
  signal: AbortSignal,
): Promise<void> {
  const borders = await borderOptions(host, from.rootfsPath);
  const options = [
    '-aHAXS',
    '--numeric-ids',
    '--delete',
    EXACT_TIMES,
    ...trees.options,
    ...borders,
    '--filter=-x security.selinux',
    OWN_XATTRS,
  ];
  const paths = [`${from.rootfsPath}/`, `${to.rootfsPath}/`];
  await host.run(['rsync', ...options, '--', ...paths], { signal, timeoutMs: COPY_LIMIT_MS });
  if (sameIdMap(from.owners, to.owners)) return;
  await host.shiftOwners(to.rootfsPath, { from: from.owners, to: to.owners }, signal);
}
