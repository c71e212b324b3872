// An ext file system on a device of the host, mounted without the kernel's own driver: its content is a tenant's, and no kernel is to
// read that. fuse2fs(1) serves it as nobody, and goes on when this process ends; it ends with its mount.
import { closeSync } from 'node:fs';
import { readFile, rmdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { AppError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { Argv, Host } from '../host.ts';
import { idMapKey, type IdMapRange } from '../id-map.ts';

import { isStillThere, type ProcessLife, processLife } from '../process-life.ts';
import { readIfPresent } from '../read-if-present.ts';
import { deviceStatus, exposeDevice, type ExposedDevice, refuseUsed } from './device.ts';
import { fakeMounter } from './fake-mounter.ts';
import { makeFileSystem, prepareFileSystem } from './file-system-check.ts';
import { admitRoot, mountFuse } from './fuse-mount.ts';
import { DEVICE_INSIDE, jailed, MOUNT_INSIDE } from './jail.ts';
import { locateData, locateRoot, type RootPlace } from './locate-root.ts';
import { asRootOf, makeNamespaces } from './namespaces.ts';
import { endTree } from './process-tree.ts';
import { launchServer } from './server-process.ts';

const READY_LIMIT_MS = 60_000;
/** What is not written yet goes to the device meanwhile. */
const FLUSH_LIMIT_MS = 120_000;
const POLL_MS = 10;
const SHOWN_LOG = 500;

export interface ServedParts {
  readonly host: Host;
  readonly log: Log;
}

export interface ServeRequest {
  /** Block device or regular file. */
  readonly source: string;
  /** Of its own; made and removed. */
  readonly directory: string;
  /** Ids on the device are the container's. */
  readonly idMap: IdMapRange;
  /** A disk beside the root; absent: it is the root. */
  readonly disk?: ServedDisk;
}

export interface ServedDisk {
  /** Path of the container's user namespace, or of one around it. */
  readonly namespace: string;
  /** A blank device gets an ext4. */
  readonly formats: boolean;
}

interface ServerNote extends ProcessLife {
  /** idMapKey() of the map. */
  readonly ids: string;
}

export interface Served {
  /** Where it is mounted. */
  readonly target: string;
  /** That whoever uses it is to be in: a path that outlives this process. */
  readonly userNamespace: string;
}

/** Where things are in the directory. */
function placesIn(directory: string) {
  return {
    target: join(directory, 'rootfs'),
    userNamespace: join(directory, 'userns'),
    disk: join(directory, 'disk'),
    life: join(directory, 'server.json'),
    log: join(directory, 'server.log'),
  };
}

export interface FoundServed extends Served {
  readonly server: ProcessLife;
  /** idMapKey() of the map. */
  readonly ids: string;
}

/** undefined: nothing is served there, or nobody serves it any more. */
export async function servedIn(host: Host, directory: string): Promise<FoundServed | undefined> {
  const { target, userNamespace } = placesIn(directory);
  const note = await noteIn(host, directory);
  if (!note || !isStillThere(note) || !(await host.mounts.isMountPoint(target))) return undefined;
  return { target, userNamespace, server: note, ids: note.ids };
}

/** It was served and nobody serves it any more. */
export async function hasEnded(host: Host, directory: string): Promise<boolean> {
  const note = await noteIn(host, directory);
  return note !== undefined && !isStillThere(note);
}

async function noteIn(host: Host, directory: string): Promise<ServerNote | undefined> {
  const text = await readIfPresent(host, placesIn(directory).life);
  // Written by serve() alone, and whole.
  return text === undefined ? undefined : (JSON.parse(text) as ServerNote);
}

/** After a failure nothing is left. AppError with the reason when what is on the device cannot be used. */
export async function serveFileSystem(parts: ServedParts, request: ServeRequest, signal: AbortSignal): Promise<Served> {
  const { host, log } = parts;
  const { directory, source, idMap } = request;
  await stopServing(parts, directory);
  await using revert = new Reverter(log);
  revert.add('served file system', () => stopServing(parts, directory));
  const { target, userNamespace } = placesIn(directory);
  await host.makeDirectory(directory, { mode: 0o711 });
  const { sizeBytes } = await deviceStatus(source);
  await refuseUsed(source);
  const device = await exposeDevice(host, source, { directory, name: 'disk' });
  const place = await placeOf({ host, device, sizeBytes }, request, signal);
  await prepareFileSystem(host, { source, device, place }, signal);
  await host.makeDirectory(target, { mode: 0o711 });
  const mounted = await mountFor(parts, request);
  const argv = jailed(device, serverProgram(place), await fakeMounter(host, directory));
  await serve(host, { ...mounted, argv, directory, idMap });
  revert.commit();
  return { target, userNamespace: request.disk?.namespace ?? userNamespace };
}

function serverProgram({ start }: RootPlace): Argv {
  const options = ['allow_other', 'default_permissions', 'fakeroot', ...(start > 0 ? [`offset=${start}`] : [])];
  return ['fuse2fs', DEVICE_INSIDE, MOUNT_INSIDE, '-f', '-o', options.join(',')];
}

/** A root is mounted for the host as well, a disk for its container alone. */
async function mountFor(
  { host, log }: ServedParts,
  { directory, idMap, disk }: ServeRequest,
): Promise<Pick<Serving, 'connection' | 'answered'>> {
  const { target, userNamespace } = placesIn(directory);
  if (disk) {
    const connection = await mountFuse(host, { name: 'lighter', target, namespace: disk.namespace });
    return { connection, answered: () => seenFrom(host, disk.namespace, target) };
  }
  if (await admitRoot(host)) log.info('root of this host may use FUSE file systems of containers from now on');
  await using namespaces = await makeNamespaces(host, idMap);
  await bindNamespace(host, namespaces.inner, userNamespace);
  const connection = await mountFuse(host, { name: 'lighter', target, namespace: namespaces.outer });
  return { connection, answered: () => stat(target) };
}

interface Device {
  readonly host: Host;
  readonly device: ExposedDevice;
  readonly sizeBytes: number;
}

async function placeOf(
  { host, device, sizeBytes }: Device,
  { source, disk }: ServeRequest,
  signal: AbortSignal,
): Promise<RootPlace> {
  if (!disk) return locateRoot(source, sizeBytes);
  const found = await locateData(source, sizeBytes);
  if (found !== 'blank') return found;
  if (!disk.formats) throw new AppError('invalid', `"${source}" is blank: there is no file system to serve`);
  const place = { start: 0, sizeBytes };
  await makeFileSystem(host, { source, device, place }, signal);
  return place;
}

async function bindNamespace(host: Host, namespace: string, path: string): Promise<void> {
  await host.writeFile(path, '');
  await host.mounts.mount({ source: namespace, target: path, type: '', flags: ['bind'] });
}

/** A user namespace of an instance, for file systems that are served before its container is there: at `path` until it is unmounted. */
export async function keepNamespace(host: Host, path: string, idMap: IdMapRange): Promise<void> {
  await using namespaces = await makeNamespaces(host, idMap);
  await bindNamespace(host, namespaces.inner, path);
}

/** Root of this host has no id in the namespaces of containers. */
async function seenFrom(host: Host, namespace: string, target: string): Promise<void> {
  await host.run([...asRootOf(namespace), 'stat', '--format=%F', '--', target], { timeoutMs: READY_LIMIT_MS });
}

interface Serving {
  readonly answered: () => Promise<unknown>;
  readonly argv: ReturnType<typeof jailed>;
  readonly connection: number;
  readonly directory: string;
  readonly idMap: IdMapRange;
}

async function serve(host: Host, { argv, connection, directory, idMap, answered: ask }: Serving): Promise<void> {
  const places = placesIn(directory);
  const server = ((): ReturnType<typeof launchServer> => {
    try {
      return launchServer(argv, { descriptor: connection, logPath: places.log });
    } finally {
      closeSync(connection); // the server alone has it now: what waits for it fails when it ends
    }
  })();
  const life = processLife(server.pid);
  if (life) await host.writeFile(places.life, JSON.stringify({ ...life, ids: idMapKey(idMap) }), { mode: 0o600 });
  const late = new AbortController();
  const answered = ask();
  answered.catch(() => undefined);
  const ended = server.ended.then(() => Promise.reject(new AppError('invalid', 'the server ended')));
  const limit = delay(READY_LIMIT_MS, undefined, { signal: late.signal }).then(() =>
    Promise.reject(new AppError('unavailable', 'the server does not answer')),
  );
  limit.catch(() => undefined);
  ended.catch(() => undefined);
  try {
    await Promise.race([answered, ended, limit]);
  } catch (cause) {
    throw new AppError('invalid', `The file system cannot be served: ${await lastWords(directory)}`, { cause });
  } finally {
    late.abort();
  }
}

/** What the server said last. */
export async function lastWords(directory: string): Promise<string> {
  const text = await readFile(placesIn(directory).log, 'utf8').catch(() => '');
  return text.trim().slice(-SHOWN_LOG) || 'it said nothing';
}

/** Resolves when all that was written is on the device, and nobody has it open. Nothing served is success. */
export async function stopServing({ host, log }: ServedParts, directory: string): Promise<void> {
  if (!(await host.exists(directory))) return;
  const { target, userNamespace, disk } = placesIn(directory);
  const note = await noteIn(host, directory);
  for (const place of await host.mounts.mountsUnder(target)) await host.mounts.unmount(place);
  if (note) await seeOff(note, log);
  for (const place of await host.mounts.mountsUnder(directory)) await host.mounts.unmount(place);
  if (await host.mounts.isMountPoint(disk)) await host.mounts.unmount(disk);
  if (await host.mounts.isMountPoint(userNamespace)) await host.mounts.unmount(userNamespace);
  // Not a tree: if it were still mounted, nothing of what is mounted may go.
  if (await host.exists(target)) await rmdir(target);
  await host.removeTree(directory);
}

/** Its mount is gone, so it ends by itself when it has written everything. */
async function seeOff(life: ProcessLife, log: Log): Promise<void> {
  if (await endsWithin(life, FLUSH_LIMIT_MS)) return;
  log.warn('the server of a file system does not end with its mount', { pid: life.pid });
  endTree(life.pid, 'SIGTERM');
  if (await endsWithin(life, FLUSH_LIMIT_MS)) return;
  endTree(life.pid, 'SIGKILL');
  if (await endsWithin(life, FLUSH_LIMIT_MS)) return;
  throw new AppError('unavailable', `The server of a file system (process ${life.pid}) does not end`);
}

async function endsWithin(life: ProcessLife, limitMs: number): Promise<boolean> {
  const end = Date.now() + limitMs;
  while (isStillThere(life)) {
    if (Date.now() > end) return false;
    await delay(POLL_MS);
  }
  return true;
}
