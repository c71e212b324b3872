// Disks that a process without rights serves: an ext file system on a device or in a file whose content is a tenant's, and which no kernel
// is to read (lighter.served).
import { readdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Host } from '#src/host/host.ts';
import { mountUsers } from '#src/host/mount-users.ts';
import {
  hasEnded,
  keepNamespace,
  serveFileSystem,
  servedIn,
  stopServing,
} from '#src/host/served/served-file-system.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { isTrue, textOf } from '../common/options.ts';
import type { Device, DeviceOwner } from '../driver.ts';

type Config = Readonly<Record<string, string>>;

const SERVED = 'lighter.served';
const FORMAT = 'lighter.served.format';
const PASSABLE = 0o711;
const LOOK_LIMIT_MS = 30_000;
/** What a bind mount of a directory of the host has, and this has not. */
const OF_OTHERS = ['pool', 'recursive', 'shift', 'propagation'];

export function isServed(config: Config): boolean {
  return config['type'] === 'disk' && isTrue(config, SERVED);
}

export function validateServed(config: Config): void {
  if (!isServed(config)) {
    if (textOf(config, FORMAT) === '') return;
    throw new AppError('invalid', `"${FORMAT}" needs "${SERVED}"`);
  }
  const unfit = OF_OTHERS.find((option) => textOf(config, option) !== '');
  if (unfit !== undefined) throw new AppError('invalid', `A disk with "${SERVED}" cannot have "${unfit}"`);
}

export interface ServedDisksContext {
  readonly host: Host;
  readonly log: Log;
  /** A directory per instance. */
  readonly servedPath: string;
}

export class ServedDisks {
  readonly #context: ServedDisksContext;

  constructor(context: ServedDisksContext) {
    this.#context = context;
  }

  /** Where its file system is mounted on the host, for the container alone. Idempotent. */
  async serve(device: Device, source: string, signal: AbortSignal): Promise<string> {
    const { host } = this.#context;
    const { owner, config } = device;
    if (!owner.idMap) throw new AppError('invalid', `A disk of a privileged instance cannot have "${SERVED}"`);
    const { userNamespace: namespace } = owner;
    if (namespace === undefined) throw new AppError('internal', 'the user namespace of the instance is not known');
    const directory = this.#directory(device);
    const found = await servedIn(host, directory);
    if (found) return found.target;
    await this.#open(owner.hostName);
    const disk = { namespace, formats: isTrue(config, FORMAT) };
    const request = { source, directory, idMap: owner.idMap, disk };
    return (await serveFileSystem(this.#context, request, signal)).target;
  }

  /** What was written is on the device when it resolves, and nobody has that open. */
  async stop(device: Device): Promise<void> {
    await stopServing(this.#context, this.#directory(device));
  }

  /** Its server was killed, or died. */
  async hasEnded(device: Device): Promise<boolean> {
    return hasEnded(this.#context.host, this.#directory(device));
  }

  /** AppError 'conflict' when it is in use: what is not written yet would be lost. */
  async refuseUsed(device: Device): Promise<void> {
    const found = await servedIn(this.#context.host, this.#directory(device));
    if (!found) return;
    const users = await mountUsers(found.target, AbortSignal.timeout(LOOK_LIMIT_MS));
    if (users.length > 0) throw new AppError('conflict', `it is in use (by ${users.join(', ')})`);
  }

  /** The user namespace that a container is to be started in: its disks are served before it is there. */
  async namespaceOf(hostName: string, idMap: DeviceOwner['idMap']): Promise<string> {
    if (!idMap) throw new AppError('invalid', `A disk of a privileged instance cannot have "${SERVED}"`);
    const { host } = this.#context;
    const path = this.#namespace(hostName);
    await this.#open(hostName);
    if (await host.mounts.isMountPoint(path)) await host.mounts.unmount(path);
    await keepNamespace(host, path, idMap);
    return path;
  }

  /** All that is there of an instance whose container is not. */
  async close(hostName: string): Promise<void> {
    const { host, servedPath } = this.#context;
    if (!(await host.exists(join(servedPath, hostName)))) return;
    const disks = join(servedPath, hostName, 'disks');
    for (const name of await readdir(disks)) await stopServing(this.#context, join(disks, name));
    const namespace = this.#namespace(hostName);
    if (await host.mounts.isMountPoint(namespace)) await host.mounts.unmount(namespace);
    await host.removeTree(namespace);
    // not trees: nothing of what may still be mounted may go
    await rmdir(disks);
    await rmdir(join(servedPath, hostName));
  }

  /** The same for all but these. */
  async closeOthers(known: ReadonlySet<string>): Promise<void> {
    const { host, servedPath, log } = this.#context;
    for (const name of await host.list(servedPath)) {
      if (known.has(name)) continue;
      await this.close(name).catch((error: unknown) => log.warn('served disks were left in use', { name, error }));
    }
  }

  async #open(hostName: string): Promise<void> {
    const { host, servedPath } = this.#context;
    const own = join(servedPath, hostName);
    for (const path of [servedPath, own, join(own, 'disks')]) await host.makeDirectory(path, { mode: PASSABLE });
  }

  #directory({ owner, device }: Device): string {
    return join(this.#context.servedPath, owner.hostName, 'disks', encodeURIComponent(device).replaceAll('.', '%2E'));
  }

  #namespace(hostName: string): string {
    return join(this.#context.servedPath, hostName, 'userns');
  }
}
