// Config drives: a folder of this machine for each instance, which the engine mounts into the container, read-only.
//
// A container cannot mount file systems, so a disk image is there when it is asked for only; cloud-init looks for the tree at
// /config-drive as well. Root of the host owns it all, and the engine shows it through the container's id map: there it is root's alone,
// too. Where the engine cannot do that, the tree belongs to the host's id of the container's root.
import { dirname, join, normalize } from 'node:path';
import type { DeviceMap, Instance, StringMap } from '#src/client/wire.ts';
import type { Host } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';
import type { GuestFile } from '../driver.ts';
import type { DriveDisks } from './drive-disks.ts';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const FOLDER_MODE = 0o700;
/** Of what root of the container sees. */
const TREE_MODE = 0o500;
const FILE_MODE = 0o400;

export interface ConfigDrivesOptions {
  /** Holds nothing else; it is made when it is needed. */
  readonly folder: string;
  readonly isMapped: boolean;
  readonly disks: DriveDisks;
  /** Guests get the disks. */
  readonly givesDisks: boolean;
}

export class ConfigDrives {
  readonly #host: Host;
  readonly #folder: string;
  readonly #disks: DriveDisks;
  readonly #givesDisks: boolean;
  /** The engine shows the drives through id maps. */
  readonly isMapped: boolean;

  constructor(host: Host, { folder, isMapped, disks, givesDisks }: ConfigDrivesOptions) {
    this.#host = host;
    this.#folder = folder;
    this.#disks = disks;
    this.#givesDisks = givesDisks;
    this.isMapped = isMapped;
  }

  /** Complete or not at all; what an earlier, interrupted spawn left of the same instance is replaced. */
  async write(uuid: string, files: readonly GuestFile[], signal: AbortSignal): Promise<void> {
    const drive = this.#driveOf(uuid);
    const fresh = join(this.#folder, `.${uuid}`);
    await this.#host.makeDirectory(this.#folder, { mode: FOLDER_MODE });
    await this.#removeIfThere(fresh);
    await this.#host.makeDirectory(fresh, { mode: TREE_MODE, fresh: true });
    for (const folder of foldersOf(files)) {
      await this.#host.makeDirectory(join(fresh, folder), { mode: TREE_MODE, fresh: true });
    }
    await Promise.all(
      files.map(({ path, content }) => this.#host.writeFile(join(fresh, path), content, { mode: FILE_MODE })),
    );
    await this.#removeIfThere(drive);
    await this.#host.rename(fresh, drive);
    if (this.#givesDisks) await this.#disks.write(uuid, drive, signal);
  }

  /** null: the instance has none. */
  async read(uuid: string): Promise<readonly GuestFile[] | null> {
    const drive = this.#driveOf(uuid);
    return (await this.#host.exists(drive)) ? await this.#filesBelow(drive, '') : null;
  }

  async #filesBelow(drive: string, folder: string): Promise<readonly GuestFile[]> {
    const names = await this.#host.list(join(drive, folder));
    const files = await Promise.all(
      names.map(async (name) => {
        const path = join(folder, name);
        const { kind } = await this.#host.status(join(drive, path));
        if (kind === 'directory') return await this.#filesBelow(drive, path);
        return [{ path, content: await this.#host.readBytes(join(drive, path)) }];
      }),
    );
    return files.flat();
  }

  /** None is success. No guest has it. */
  async remove(uuid: string, signal: AbortSignal): Promise<void> {
    const drive = this.#driveOf(uuid);
    await this.#disks.remove(uuid, signal);
    await this.#removeIfThere(drive);
  }

  /** Removes what belongs to none of `uuids`, half written ones included; nothing is being written meanwhile. */
  async keepOnly(uuids: ReadonlySet<string>, signal: AbortSignal): Promise<readonly string[]> {
    await this.#disks.keepOnly(uuids, signal);
    const names = await this.#host.list(this.#folder);
    const stale = names.filter((name) => !uuids.has(name));
    for (const name of stale) await this.#host.removeTree(join(this.#folder, name));
    return stale;
  }

  /** Gives the drive to root of an instance that does not run; the engine has chosen its id map. */
  async own(uuid: string, { config }: Pick<Instance, 'config'>): Promise<void> {
    const drive = this.#driveOf(uuid);
    const root = rootIdOf(config);
    if (!(await this.#host.exists(drive)) || (await this.#host.status(drive)).uid === root) return;
    await this.#host.run(['chown', '-R', '-h', `${root}:${root}`, '--', drive]);
  }

  /** The devices of the engine that show the drive of an instance. */
  async devices(uuid: string, signal: AbortSignal): Promise<DeviceMap> {
    const source = this.#driveOf(uuid);
    const shift = this.isMapped ? { shift: 'true' } : {};
    const folder = { type: 'disk', source, path: '/config-drive', readonly: 'true', ...shift };
    return { 'config-drive': folder, ...(await this.disk(uuid, signal)) };
  }

  /** The device that is the drive of an instance as a disk, made where it is missing; none when the instance should have none. */
  async disk(uuid: string, signal: AbortSignal): Promise<DeviceMap> {
    const tree = this.#driveOf(uuid);
    if (!this.#givesDisks || !(await this.#host.exists(tree))) return {};
    if (!(await this.#disks.has(uuid))) await this.#disks.write(uuid, tree, signal);
    return await this.#disks.device(uuid, signal);
  }

  async #removeIfThere(path: string): Promise<void> {
    if (await this.#host.exists(path)) await this.#host.removeTree(path);
  }

  #driveOf(uuid: string): string {
    if (!UUID.test(uuid)) throw new AppError('invalid', 'the uuid of the instance is none');
    return join(this.#folder, uuid);
  }
}

/** The host's id of root in a container; the engine says it in its own words, as a list of ranges. */
function rootIdOf(config: StringMap): number {
  const text = config['volatile.idmap.next'] ?? config['volatile.last_state.idmap'] ?? '[]';
  const ranges = parsed(text);
  const range = Array.isArray(ranges)
    ? ranges.find((one: unknown) => isRange(one) && one.Isuid && one.Nsid === 0)
    : undefined;
  return isRange(range) ? range.Hostid : 0;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new AppError('internal', 'the id map of an instance cannot be read', { cause });
  }
}

function isRange(value: unknown): value is { readonly Isuid: boolean; readonly Nsid: number; readonly Hostid: number } {
  if (typeof value !== 'object' || value === null) return false;
  const { Isuid: isUid, Nsid: inside, Hostid: outside } = value as Record<string, unknown>;
  return typeof isUid === 'boolean' && typeof inside === 'number' && Number.isSafeInteger(outside);
}

/** Every folder of the tree, parents first. Paths that are not below it are a mistake of ours. */
function foldersOf(files: readonly GuestFile[]): readonly string[] {
  const folders = new Set<string>();
  for (const { path } of files) {
    if (path !== normalize(path) || path.startsWith('/') || path.startsWith('..')) {
      throw new AppError('internal', 'a config drive has a path that leads out of it');
    }
    for (let folder = dirname(path); folder !== '.'; folder = dirname(folder)) folders.add(folder);
  }
  return [...folders].toSorted((left, right) => left.split('/').length - right.split('/').length);
}
