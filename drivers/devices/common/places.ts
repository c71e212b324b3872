// Where devices of instances lie on the host on their way into a container: devices/INSTANCE/TYPE.DEVICE…, on a tmpfs of our own, as
// the directory's file system may not allow device nodes.
import { rmdir, unlink } from 'node:fs/promises';
import type { Host } from '#src/host/host.ts';
import type { Device, DeviceContext } from '../driver.ts';

const PASSABLE = 0o711;

export class DevicePlaces {
  readonly #host: Host;
  readonly #root: string;

  constructor({ host, devicesPath }: Pick<DeviceContext, 'host' | 'devicesPath'>) {
    this.#host = host;
    this.#root = devicesPath;
  }

  /** A path for `kind` of this device; `part` tells apart what one device has several of. */
  path({ owner, device }: Pick<Device, 'owner' | 'device'>, kind: string, part = ''): string {
    const name = part === '' ? `${kind}.${escaped(device)}` : `${kind}.${escaped(device)}.${escaped(part)}`;
    return `${this.directory(owner.hostName)}/${name}`;
  }

  directory(hostName: string): string {
    return `${this.#root}/${hostName}`;
  }

  /** Makes the instance's directory. */
  async open(hostName: string): Promise<void> {
    const { mounts } = this.#host;
    await this.#host.makeDirectory(this.#root, { mode: PASSABLE });
    if (!(await mounts.isMountPoint(this.#root))) {
      await mounts.mount({ source: 'tmpfs', target: this.#root, type: 'tmpfs', data: 'size=100k,mode=0711' });
      await mounts.mount({ source: '', target: this.#root, type: '', flags: ['private'] });
    }
    await this.#host.makeDirectory(this.directory(hostName), { mode: PASSABLE });
  }

  /** Unmounts and removes what is at the path; absent is success. Never follows into what may still be mounted there. */
  async clear(path: string): Promise<void> {
    while (await this.#host.mounts.isMountPoint(path)) await this.#host.mounts.unmount(path);
    await unlink(path).catch(async (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return;
      if (error.code === 'EISDIR' || error.code === 'EPERM') return rmdir(path);
      throw error;
    });
  }

  /** Every path of a device that has several, with the part that tells it apart. */
  async of(device: Device, kind: string): Promise<readonly { readonly path: string; readonly part: string }[]> {
    const prefix = `${kind}.${escaped(device.device)}.`;
    const directory = this.directory(device.owner.hostName);
    const names = (await this.#host.list(directory)).filter((name) => name.startsWith(prefix));
    return names.map((name) => ({
      path: `${directory}/${name}`,
      part: decodeURIComponent(name.slice(prefix.length)),
    }));
  }

  /** What is left of a container that does not run. */
  async sweep(hostName: string): Promise<void> {
    const directory = this.directory(hostName);
    const { mounts } = this.#host;
    for (const name of await this.#host.list(directory)) {
      for (const inside of await mounts.mountsUnder(`${directory}/${name}`)) await mounts.unmount(inside);
      await this.clear(`${directory}/${name}`);
    }
    await rmdir(directory).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error;
    });
  }
}

/** Device names may hold slashes, and dots, which part what we write: "a.b" and "b" of "a" must not be the same. */
function escaped(name: string): string {
  return encodeURIComponent(name).replaceAll('.', '%2E');
}
