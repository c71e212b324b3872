// Device nodes for a container: made on the host for the container's ids, and bound into it.
import { stat } from 'node:fs/promises';
import type { Host } from '#src/host/host.ts';
import { hostIds } from '#src/host/id-map.ts';
import type { RuntimeMount } from '../../runtime/driver.ts';
import type { Device, DeviceOwner, StartedDevice } from '../driver.ts';
import { octalMode, type OptionChecks, textOf, userId } from './options.ts';
import { type DevicePlaces, type Place, relative } from './places.ts';

export interface Node {
  readonly kind: 'char' | 'block';
  readonly major: number;
  readonly minor: number;
  /** Inside the container. */
  readonly path: string;
}

export const OWNER_CHECKS: OptionChecks = { uid: userId, gid: userId, mode: octalMode };
const DEFAULT_MODE = '0660';

/** undefined: there is no node at this path. */
export async function nodeAt(path: string): Promise<Omit<Node, 'path'> | undefined> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined;
    throw error;
  });
  if (!found || !(found.isBlockDevice() || found.isCharacterDevice())) return undefined;
  const { rdev } = found;
  const major = Math.floor(rdev / 256) % 4096;
  const minor = (rdev % 256) + Math.floor(rdev / 2 ** 20) * 256;
  return { kind: found.isBlockDevice() ? 'block' : 'char', major, minor };
}

interface NodeParts {
  readonly host: Host;
  readonly places: DevicePlaces;
}

export async function makeNodes(
  { host, places }: NodeParts,
  device: Device,
  nodes: readonly Node[],
): Promise<StartedDevice> {
  const { config, owner } = device;
  await places.open(owner.hostName);
  const mode = Number.parseInt(textOf(config, 'mode') || DEFAULT_MODE, 8);
  const inside = { uid: Number(textOf(config, 'uid') || 0), gid: Number(textOf(config, 'gid') || 0) };
  const { uid, gid } = hostIds(inside, owner.idMap);
  for (const node of nodes) {
    const place = places.path(device, 'unix', node.path);
    await places.clear(place);
    await host.makeNode(place, { ...node, mode, uid, gid });
  }
  return madeNodes(places, device);
}

/** What makeNodes() made and is still there. */
export async function madeNodes(places: DevicePlaces, device: Device): Promise<StartedDevice> {
  const mounts: RuntimeMount[] = [];
  const rules: string[] = [];
  for (const { place, node } of await shown(places, device.owner, ({ device: name }) => name === device.device)) {
    mounts.push({ source: place.path, target: place.part, type: 'none', options: ['bind', 'create=file'] });
    rules.push(`${node.kind === 'char' ? 'c' : 'b'} ${node.major}:${node.minor} rwm`);
  }
  return { mounts, rules };
}

/** Of all devices of an instance, as it sees them: paths are relative to its root. */
export async function shownNodes(places: DevicePlaces, owner: DeviceOwner): Promise<readonly Node[]> {
  return (await shown(places, owner, () => true)).map(({ place, node }) => ({ ...node, path: place.part }));
}

/** A path inside shows the device that had it first: cards share nodes, for one. */
async function shown(places: DevicePlaces, owner: DeviceOwner, isWanted: (place: Place) => boolean) {
  const all = await places.all(owner, 'unix');
  const found: { readonly place: Place; readonly node: Omit<Node, 'path'> }[] = [];
  for (const place of all.filter((one) => isWanted(one))) {
    const node = await nodeAt(place.path);
    if (node && !(await isTaken(place, all))) found.push({ place, node });
  }
  return found;
}

async function isTaken({ path, device, part }: Place, all: readonly Place[]): Promise<boolean> {
  const rivals = all.filter((other) => other.part === part && other.device !== device);
  if (rivals.length === 0) return false;
  const own = await madeAt(path);
  const times = await Promise.all(rivals.map((rival) => madeAt(rival.path)));
  return times.some((time) => time < own);
}

/** Which was made first: numbers of inodes of the tmpfs that devices lie on only grow. */
async function madeAt(path: string): Promise<bigint> {
  return (await stat(path, { bigint: true })).ino;
}

/** Whether what makeNodes() made is not what is wanted now. */
export async function areStale(places: DevicePlaces, device: Device, wanted: readonly Node[]): Promise<boolean> {
  const text = (node: Omit<Node, 'path'>, path: string): string => `${node.kind} ${node.major}:${node.minor} ${path}`;
  const made = (await places.of(device, 'unix')).map(async ({ path, part }) => {
    const node = await nodeAt(path);
    return node ? text(node, part) : '';
  });
  const wants = wanted.map((node) => text(node, relative(node.path)));
  return (await Promise.all(made)).toSorted().join('\n') !== wants.toSorted().join('\n');
}

export async function removeNodes(places: DevicePlaces, device: Device): Promise<void> {
  for (const { path } of await places.of(device, 'unix')) await places.clear(path);
}
