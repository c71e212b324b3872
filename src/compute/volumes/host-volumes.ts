// Cinder's volumes on this host: which are connected for which instance, and under which names guests have them.
//
// What is connected is written down before it is, and forgotten after it is not: a folder for each volume has, for each instance
// that uses it, a link to its device and a file that says how it is reached. The folders are those of one boot of the host, so that a
// name in a guest's configuration never comes to mean a device that another volume has got since.
import { join } from 'node:path';
import { Readable } from 'node:stream';
import type { VolumeConnection, VolumeContext, VolumeDriver } from '#drivers/volume/driver.ts';
import { volumeDrivers } from '#drivers/volume/registry.ts';
import { copyDevice, type CopyOptions } from '#src/host/device-copy.ts';
import { deviceUsers } from '#src/host/device-users.ts';
import type { RunningCommand } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';
import { KeyedLock } from '#src/lib/keyed-lock.ts';

const BOOT_ID = '/proc/sys/kernel/random/boot_id';
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const NOTE = /^(?<instance>[0-9a-f-]{36})\.json$/i;

export interface VolumeUse {
  readonly volumeId: string;
  readonly instanceUuid: string;
}

export interface HostVolumes {
  /** Resolves with the path of the block device for this use. Idempotent; nothing is left after a failure. */
  connect(use: VolumeUse, connection: VolumeConnection, signal: AbortSignal): Promise<string>;
  /** Absent is success. `connection`: for what an earlier program connected. 'conflict' while a guest still uses it. */
  disconnect(use: VolumeUse, connection: VolumeConnection | null, signal: AbortSignal): Promise<void>;
  /** All that an instance uses here. */
  disconnectInstance(instanceUuid: string, signal: AbortSignal): Promise<void>;
  extend(connection: VolumeConnection, signal: AbortSignal): Promise<void>;
  /** The first bytes of a volume that is connected for this use; fewer when it has no more. */
  read(use: VolumeUse, bytes: number, signal: AbortSignal): Promise<Readable>;
  /** Names of the programs of this host, those of guests too, that have a connected volume open. */
  users(use: VolumeUse, signal: AbortSignal): Promise<readonly string[]>;
  /** All of one connected volume to another one, which nobody else has meanwhile: 'conflict'. */
  copy(volumes: { readonly from: VolumeUse; readonly to: VolumeUse }, options: CopyOptions): Promise<void>;
  /** Disconnects what instances that are not here have left; returns what could not be, with the reason. */
  keepOnly(instances: ReadonlySet<string>, signal: AbortSignal): Promise<readonly unknown[]>;
}

export interface HostVolumesOptions extends VolumeContext {
  /** Of this module alone. */
  readonly folder: string;
}

export function createHostVolumes(options: HostVolumesOptions): HostVolumes {
  return new ConnectedVolumes(options);
}

class ConnectedVolumes implements HostVolumes {
  readonly #options: HostVolumesOptions;
  readonly #drivers: readonly VolumeDriver[];
  /** By volume. */
  readonly #locks = new KeyedLock();
  #boot: Promise<string> | undefined;

  constructor(options: HostVolumesOptions) {
    this.#options = options;
    this.#drivers = Object.values(volumeDrivers).map((module) => module.create(options));
  }

  async connect(use: VolumeUse, connection: VolumeConnection, signal: AbortSignal): Promise<string> {
    const driver = this.#driver(connection);
    const link = await this.#link(use);
    const { host } = this.#options;
    const work = async (): Promise<string> => {
      const wasKnown = await host.exists(`${link}.json`);
      await host.makeDirectory(await this.#folder(), { mode: 0o700 });
      await host.makeDirectory(join(link, '..'), { mode: 0o700 });
      await host.writeFile(`${link}.json`, JSON.stringify(connection), { mode: 0o600 });
      try {
        const device = await driver.connect(connection, signal);
        await host.run(['ln', '--symbolic', '--force', '--no-target-directory', '--', device, link], { signal });
      } catch (error) {
        if (!wasKnown) await host.removeTree(`${link}.json`);
        throw error;
      }
      return link;
    };
    return await this.#locks.run(use.volumeId, work, signal);
  }

  async disconnect(use: VolumeUse, given: VolumeConnection | null, signal: AbortSignal): Promise<void> {
    const link = await this.#link(use);
    const { host } = this.#options;
    const work = async (): Promise<void> => {
      const connection = (await this.#noted(link)) ?? given;
      await host.removeTree(link);
      const others = (await this.#users(use.volumeId)).filter((uuid) => uuid !== use.instanceUuid);
      if (connection && others.length === 0) await this.#driver(connection).disconnect(connection, signal);
      await host.removeTree(`${link}.json`);
      if (others.length === 0) await host.removeTree(join(link, '..'));
    };
    await this.#locks.run(use.volumeId, work, signal);
  }

  async disconnectInstance(instanceUuid: string, signal: AbortSignal): Promise<void> {
    for (const use of await this.#uses()) {
      if (use.instanceUuid === instanceUuid) await this.disconnect(use, null, signal);
    }
  }

  async extend(connection: VolumeConnection, signal: AbortSignal): Promise<void> {
    await this.#driver(connection).extend(connection, signal);
  }

  async read(use: VolumeUse, bytes: number, signal: AbortSignal): Promise<Readable> {
    const { host } = this.#options;
    const reading = host.start(['head', `--bytes=${bytes}`, '--', await this.#link(use)], {
      signal,
      timeoutMs: Infinity,
    });
    reading.stdin.end();
    return Readable.from(checked(reading), { objectMode: false });
  }

  async users(use: VolumeUse, signal: AbortSignal): Promise<readonly string[]> {
    return deviceUsers(this.#options.host, await this.#link(use), signal);
  }

  async copy({ from, to }: Parameters<HostVolumes['copy']>[0], options: CopyOptions): Promise<void> {
    await copyDevice(await this.#link(from), await this.#link(to), options);
  }

  async keepOnly(instances: ReadonlySet<string>, signal: AbortSignal): Promise<readonly unknown[]> {
    const { host, folder } = this.#options;
    const own = await this.#folder();
    for (const name of await host.list(folder)) {
      if (join(folder, name) !== own) await host.removeTree(join(folder, name));
    }
    const stale = (await this.#uses()).filter(({ instanceUuid }) => !instances.has(instanceUuid));
    const results = await Promise.allSettled(stale.map((use) => this.disconnect(use, null, signal)));
    return results.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : []));
  }

  async #uses(): Promise<readonly VolumeUse[]> {
    const volumes = await this.#options.host.list(await this.#folder());
    const uses = volumes.map(async (volumeId) =>
      (await this.#users(volumeId)).map((instanceUuid) => ({ volumeId, instanceUuid })),
    );
    return (await Promise.all(uses)).flat();
  }

  /** Uuids of the instances that have the volume. */
  async #users(volumeId: string): Promise<readonly string[]> {
    const names = await this.#options.host.list(join(await this.#folder(), volumeId));
    return names.flatMap((name) => NOTE.exec(name)?.groups?.['instance'] ?? []);
  }

  async #noted(link: string): Promise<VolumeConnection | null> {
    const { host } = this.#options;
    if (!(await host.exists(`${link}.json`))) return null;
    return JSON.parse(await host.readFile(`${link}.json`)) as VolumeConnection;
  }

  async #link({ volumeId, instanceUuid }: VolumeUse): Promise<string> {
    for (const id of [volumeId, instanceUuid]) if (!UUID.test(id)) throw new AppError('invalid', `${id} is no uuid`);
    return join(await this.#folder(), volumeId, instanceUuid);
  }

  async #folder(): Promise<string> {
    this.#boot ??= this.#options.host.readFile(BOOT_ID);
    return join(this.#options.folder, (await this.#boot).trim());
  }

  #driver({ type }: VolumeConnection): VolumeDriver {
    const driver = this.#drivers.find(({ types }) => types.includes(type));
    if (driver) return driver;
    const known = this.#drivers.flatMap(({ types }) => types).join(', ');
    throw new AppError('unsupported', `volumes of type ${type} are not supported on this host; it has ${known}`);
  }
}

/** Its output, which ends well only when the program does. */
async function* checked({ stdout, done }: RunningCommand): AsyncGenerator<Buffer> {
  const ended = done.then(
    () => undefined,
    (error: unknown) => error,
  );
  for await (const chunk of stdout) yield Buffer.from(chunk as Buffer);
  const failure = await ended;
  if (failure !== undefined) throw failure;
}
