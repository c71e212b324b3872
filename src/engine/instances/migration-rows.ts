// Snapshots and id maps between the engine's rows and the messages of a migration.
import { idMapOf, type IdMapRange, rangesOf } from '#src/host/id-map.ts';
import { type SnapshotRecord, ZERO_TIME } from '../db/records.ts';
import type { IdMapEntry, Pair, SnapshotMessage } from '../migration/messages.ts';
import { validateSnapshotName } from '../snapshots/names.ts';
import type { ConfigMap } from '../types.ts';
import type { Unowned } from './copy.ts';

/** LXD's numbers of architectures begin with 1. */
const ARCHITECTURES =
  'i686 x86_64 armv7l aarch64 ppc ppc64 ppc64le s390x mips mips64 riscv32 riscv64 armv6l armv8l'.split(' ');
const ZERO_SECONDS = Date.parse(ZERO_TIME) / 1000;

export const pairs = (map: ConfigMap): readonly Pair[] => Object.entries(map).map(([key, value]) => ({ key, value }));
export const mapOf = (list: readonly Pair[]): ConfigMap =>
  Object.fromEntries(list.map(({ key, value }) => [key, value]));
export const secondsOf = (time: string): number => Math.floor(Date.parse(time) / 1000);

export function timeOf(seconds = ZERO_SECONDS): string {
  return seconds <= ZERO_SECONDS ? ZERO_TIME : new Date(seconds * 1000).toISOString();
}

export function messageOfSnapshot(snapshot: SnapshotRecord): SnapshotMessage {
  return {
    name: snapshot.name,
    config: pairs(snapshot.config),
    profiles: snapshot.profiles,
    ephemeral: snapshot.ephemeral,
    devices: Object.entries(snapshot.devices).map(([name, device]) => ({ name, config: pairs(device) })),
    architecture: ARCHITECTURES.indexOf(snapshot.architecture) + 1,
    stateful: false,
    createdAt: secondsOf(snapshot.createdAt),
    lastUsedAt: secondsOf(snapshot.lastUsedAt),
    expiresAt: secondsOf(snapshot.expiresAt),
  };
}

/** AppError 'invalid' for a name that cannot be one. */
export function snapshotOfMessage(message: SnapshotMessage): Unowned {
  validateSnapshotName(message.name);
  const { name, config, profiles, ephemeral, devices, architecture, createdAt, lastUsedAt, expiresAt } = message;
  return {
    name,
    architecture: ARCHITECTURES[architecture - 1] ?? 'x86_64',
    ephemeral,
    stateful: false,
    description: '',
    config: mapOf(config),
    devices: Object.fromEntries(devices.map((device) => [device.name, mapOf(device.config)])),
    profiles,
    createdAt: timeOf(createdAt),
    lastUsedAt: timeOf(lastUsedAt),
    expiresAt: timeOf(expiresAt),
  };
}

export function messageOfIdMap(map: IdMapRange | null): readonly IdMapEntry[] {
  if (map === null) return [];
  return rangesOf(map).map(({ kind, containerId, hostId, size }) => {
    return { isUid: kind === 'uid', isGid: kind === 'gid', hostId, nsId: containerId, size };
  });
}

/** null: the files have the ids that the container sees. */
export function idMapOfMessage(entries: readonly IdMapEntry[]): IdMapRange | null {
  if (entries.length === 0) return null;
  const ranges = entries.flatMap(({ isUid, isGid, hostId, nsId, size }) => {
    const range = { containerId: nsId, hostId, size };
    return [
      ...(isUid ? [{ kind: 'uid', ...range } as const] : []),
      ...(isGid ? [{ kind: 'gid', ...range } as const] : []),
    ];
  });
  return idMapOf(ranges);
}
