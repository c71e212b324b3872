// Where devices of instances lie on the host on their way into a container: devices/INSTANCE/TYPE.DEVICE…, on a tmpfs of our own, as
// the directory's file system may not allow device nodes.
import { rmdir, unlink } from 'node:fs/promises';
import type { Host } from '#src/host/host.ts';
import type { Device, DeviceContext } from '../driver.ts';

const PASSABLE = 0o711;

export interface Place {
  readonly path: string;
  readonly device: string;
  /** Relative to the container's root. */
  readonly part: string;
}

export class DevicePlaces {
  readonly #host: Host;
  readonly #root: string;

  constructor({ host, devicesPath }: Pick<DeviceContext, 'host' | 'devicesPath'>) {
    this.#host = host;
    this.#root = devicesPath;
  }

  /** A path for `kind` of this device; `part`, a path in the container, tells apart what one device has several of. */
  path({ owner, device }: Pick<Device, 'owner' | 'device'>, kind: string, part = ''): string {
    const name = `${kind}.${nameOf(device)}${part === '' ? '' : `.${encoded(relative(part))}`}`;
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

  /** When nothing uses places any more: of a tmpfs without a place nothing is left. */
  async close(): Promise<void> {
    const { mounts } = this.#host;
    const isEmpty = async (): Promise<boolean> => (await this.#host.list(this.#root)).length === 0;
    while ((await mounts.isMountPoint(this.#root)) && (await isEmpty())) await mounts.unmount(this.#root);
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

  /** What devices of the instance have of this kind, each with the part that tells it apart: a path relative to the container's root. */
  async all(owner: Device['owner'], kind: string): Promise<readonly Place[]> {
    const directory = this.directory(owner.hostName);
    const names = await this.#host.list(directory);
    return names.flatMap((name) => {
      const [found, device, ...rest] = name.split('.');
      if (found !== kind || device === undefined || rest.length === 0) return [];
      return [{ path: `${directory}/${name}`, device: decoded(device), part: decoded(rest.join('.')) }];
    });
  }

  /** Every path of a device that has several. */
  async of({ owner, device }: Pick<Device, 'owner' | 'device'>, kind: string): Promise<readonly Place[]> {
    return (await this.all(owner, kind)).filter((place) => place.device === device);
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

/** Paths with and without a slash in front are the same place in a container. */
export function relative(path: string): string {
  return path.replace(/^\/+/, '');
}

/** Dots part what we write: "a.b" and "b" of "a" must not be the same. */
function nameOf(device: string): string {
  return encoded(device).replaceAll('.', '%2E');
}

/** As LXD writes paths in file names, "-" as "--" and "/" as "-"; what could not be read back then is percent-encoded. */
function encoded(text: string): string {
  return text
    .replaceAll('%', '%25')
    .replaceAll(/(?<=\/)[-/]/gu, (char) => (char === '-' ? '%2D' : '%2F'))
    .replaceAll('-', '--')
    .replaceAll('/', '-');
}

const PLAIN: Readonly<Record<string, string>> = { '--': '-', '-': '/', '%25': '%', '%2D': '-', '%2E': '.', '%2F': '/' };

function decoded(name: string): string {
  return name.replaceAll(/--|-|%2[5DEF]/gu, (match) => PLAIN[match] ?? match);
}
