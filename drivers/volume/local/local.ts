// driver_volume_type `local`: a block device that this host has anyway, or a file of it.
import { isAbsolute, normalize } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import { refuseEncrypted, textOf } from '../common/connection-data.ts';
import { LoopDevices } from '#src/host/loop-devices.ts';
import type { VolumeConnection, VolumeContext, VolumeDriver, VolumeModule } from '../driver.ts';

class LocalVolumes implements VolumeDriver {
  readonly types = ['local'];
  readonly #context: VolumeContext;
  readonly #loops: LoopDevices;

  constructor(context: VolumeContext) {
    this.#context = context;
    this.#loops = new LoopDevices(context.host);
  }

  async connect(connection: VolumeConnection, signal: AbortSignal): Promise<string> {
    refuseEncrypted(connection);
    const path = pathOf(connection);
    if (await this.#isFile(path)) return this.#loops.attach(path, signal);
    if (await this.#isBlockDevice(path, signal)) return path;
    throw new AppError('invalid', `${path} is neither a file nor a block device`);
  }

  /** Of a device there is nothing to take back. */
  async disconnect(connection: VolumeConnection, signal: AbortSignal): Promise<void> {
    await this.#loops.detach(pathOf(connection), signal);
  }

  async extend(connection: VolumeConnection, signal: AbortSignal): Promise<void> {
    const path = pathOf(connection);
    if (await this.#isFile(path)) return this.#loops.grow(path, signal);
    if (!(await this.#isBlockDevice(path, signal))) throw new AppError('not_found', `${path} is not there`);
  }

  async #isFile(path: string): Promise<boolean> {
    const { host } = this.#context;
    return (await host.exists(path)) && (await host.status(path)).kind === 'file';
  }

  /** A link to one as well, as udev makes them. */
  async #isBlockDevice(path: string, signal: AbortSignal): Promise<boolean> {
    const argv = ['test', '-b', path] as const;
    return (await this.#context.host.run(argv, { signal, okExitCodes: [0, 1] })).exitCode === 0;
  }
}

function pathOf(connection: VolumeConnection): string {
  const path = textOf(connection, 'device_path');
  if (isAbsolute(path) && normalize(path) === path) return path;
  throw new AppError('invalid', 'the device_path of a local volume is not an absolute path');
}

export const local: VolumeModule = { name: 'local', create: (context) => new LocalVolumes(context) };
