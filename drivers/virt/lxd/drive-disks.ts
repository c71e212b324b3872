// Config drives as disks: an ISO 9660 image of the tree, a block device of this machine that a guest gets, read-only.
//
// The guest's configuration names a link, which is of one boot of the host: after the next one the device is somebody else's, and
// a guest that starts without us must not get it.
import { join } from 'node:path';
import type { DeviceMap } from '#src/client/wire.ts';
import type { Host } from '#src/host/host.ts';
import { LoopDevices } from '#src/host/loop-devices.ts';

const BOOT_ID = '/proc/sys/kernel/random/boot_id';
const IMAGE = '.iso';
const FOLDER_MODE = 0o700;
/** What guests know it by, whatever Nova wrote on it: Nova's own label. */
const LABEL = 'config-2';
/** Joliet and Rock Ridge, and names as they are: what Nova asks of the same program. */
const FORMAT = ['-quiet', '-J', '-r', '-V', LABEL, '-ldots', '-allow-lowercase', '-allow-multidot', '-l'];

export const DRIVE_DISK = 'config-drive-disk';
const GUEST_PATH = '/dev/sr0';

export interface DriveDisksOptions {
  /** Holds nothing else; it is made when it is needed. */
  readonly folder: string;
  /** genisoimage, or one that takes the same options. */
  readonly command: string;
}

export class DriveDisks {
  readonly #host: Host;
  readonly #loops: LoopDevices;
  readonly #options: DriveDisksOptions;

  constructor(host: Host, options: DriveDisksOptions) {
    this.#host = host;
    this.#loops = new LoopDevices(host);
    this.#options = options;
  }

  /** Of a tree; the one that an instance had before is replaced. */
  async write(uuid: string, tree: string, signal: AbortSignal): Promise<void> {
    const { folder, command } = this.#options;
    await this.remove(uuid, signal);
    await this.#host.makeDirectory(folder, { mode: FOLDER_MODE });
    const image = this.#imageOf(uuid);
    const fresh = join(folder, `.${uuid}${IMAGE}`);
    await this.#host.run([command, ...FORMAT, '-o', fresh, tree], { signal });
    await this.#host.rename(fresh, image);
  }

  async has(uuid: string): Promise<boolean> {
    return this.#host.exists(this.#imageOf(uuid));
  }

  /** The device of the engine that shows the disk of an instance; connected. */
  async device(uuid: string, signal: AbortSignal): Promise<DeviceMap> {
    const link = await this.#linkOf(uuid);
    const device = await this.#loops.attach(this.#imageOf(uuid), signal, { readOnly: true });
    await this.#host.makeDirectory(join(link, '..'), { mode: FOLDER_MODE });
    await this.#host.run(['ln', '--symbolic', '--force', '--no-target-directory', '--', device, link], { signal });
    return { [DRIVE_DISK]: { type: 'unix-block', source: link, path: GUEST_PATH, mode: '0400' } };
  }

  /** None is success. */
  async remove(uuid: string, signal: AbortSignal): Promise<void> {
    const image = this.#imageOf(uuid);
    if (!(await this.#host.exists(image))) return;
    await this.#loops.detach(image, signal);
    await this.#host.removeTree(await this.#linkOf(uuid));
    await this.#host.removeTree(image);
  }

  /** Removes those of none of `uuids`, half written ones included, and what was of other boots of the host. */
  async keepOnly(uuids: ReadonlySet<string>, signal: AbortSignal): Promise<void> {
    const names = await this.#host.list(this.#options.folder);
    const boot = names.length > 0 ? await this.#boot() : '';
    for (const name of names) {
      const uuid = name.endsWith(IMAGE) && !name.startsWith('.') ? name.slice(0, -IMAGE.length) : undefined;
      if (name === boot || (uuid !== undefined && uuids.has(uuid))) continue;
      if (uuid === undefined) await this.#host.removeTree(join(this.#options.folder, name));
      else await this.remove(uuid, signal);
    }
  }

  #imageOf(uuid: string): string {
    return join(this.#options.folder, `${uuid}${IMAGE}`);
  }

  async #linkOf(uuid: string): Promise<string> {
    return join(this.#options.folder, await this.#boot(), uuid);
  }

  async #boot(): Promise<string> {
    return (await this.#host.readFile(BOOT_ID)).trim();
  }
}
