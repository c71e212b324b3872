// What a container sees of the host's block devices in /sys: those that it was given, by the names that it has for them. Three
// directories of links are mounted over the three lists of sysfs. Links lead into sysfs itself, so that sizes and all else are the
// kernel's. It is a view, no wall: /sys/devices still has everything. Where lxcfs covers files of /proc, /proc/partitions is covered
// as well.
import { readlink, rm, symlink, unlink, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import type { Host } from '#src/host/host.ts';
import { readKernelFile } from '#src/host/kernel-files.ts';
import { LXCFS } from '#src/host/lxcfs.ts';
import type { RuntimeMount } from '../../runtime/driver.ts';
import type { DeviceContext, DeviceOwner } from '../driver.ts';
import { type Node, shownNodes } from './nodes.ts';
import { DevicePlaces } from './places.ts';

/** The lists in sysfs, and how deep they lie in it. */
const LISTS = { block: 'block', class: 'class/block', numbers: 'dev/block' } as const;
const PARTITIONS = 'partitions';
const OPTIONS = ['bind', 'ro', 'nosuid', 'nodev', 'noexec', 'optional'];
/** sysfs counts these, /proc/partitions blocks of 1024. */
const SECTORS_PER_BLOCK = 2;

/** Of a list: name of a link → where it leads. */
type Links = ReadonlyMap<string, string>;
type View = Readonly<Record<keyof typeof LISTS, Links>>;

interface BlockDevice {
  readonly name: string;
  /** "7:0". */
  readonly numbers: string;
  /** Below /sys: "devices/virtual/block/loop0". */
  readonly path: string;
}

export interface BlockViewContext extends Pick<DeviceContext, 'host' | 'devicesPath'> {
  /** $LIGHTER_DIR/blocks: a directory per instance. */
  readonly blocksPath: string;
}

export class BlockView {
  readonly #host: Host;
  readonly #places: DevicePlaces;
  readonly #root: string;

  constructor(context: BlockViewContext) {
    this.#host = context.host;
    this.#places = new DevicePlaces(context);
    this.#root = context.blocksPath;
  }

  /** For a container that is about to start, with its devices made. */
  async open(owner: DeviceOwner): Promise<readonly RuntimeMount[]> {
    const directories = Object.keys(LISTS).map((list) => this.#directory(owner, list));
    await Promise.all(directories.map((directory) => this.#host.makeDirectory(directory, { mode: 0o755 })));
    await this.#fill(owner);
    const lists = Object.entries(LISTS).map(([list, target]): readonly [string, string] => [list, `sys/${target}`]);
    const files = (await this.#coversProc()) ? [[PARTITIONS, `proc/${PARTITIONS}`] as const] : [];
    return [...lists, ...files].map(([list, target]) => {
      return { source: this.#directory(owner, list), target, type: 'none', options: OPTIONS };
    });
  }

  /**
   * A file that is covered keeps the container's processes from mounting a /proc in user namespaces of theirs; where lxcfs covers
   * some, one more costs nothing. That lxcfs does not answer is told by the runtime.
   */
  async #coversProc(): Promise<boolean> {
    const files = await this.#host.list(`${LXCFS}/proc`).catch(() => []);
    return files.length > 0;
  }

  /** Makes it what the container has now. Without open() it sees the host's, and nothing is done. Idempotent. */
  async update(owner: DeviceOwner): Promise<void> {
    if (await this.#host.exists(this.#viewOf(owner.hostName))) await this.#fill(owner);
  }

  async #fill(owner: DeviceOwner): Promise<void> {
    const devices = await this.#blockDevices(owner);
    const view = viewOf(devices);
    const lists = ['block', 'class', 'numbers'] as const;
    await Promise.all(lists.map((list) => this.#follow(this.#directory(owner, list), view[list])));
    // in its place: what is mounted is this very file
    await writeFile(this.#directory(owner, PARTITIONS), partitionsOf(devices));
  }

  /** Undoes open(). Idempotent. */
  async close(hostName: string): Promise<void> {
    // nothing is ever mounted in it on the host
    await rm(this.#viewOf(hostName), { recursive: true, force: true });
  }

  async #blockDevices(owner: DeviceOwner): Promise<readonly BlockDevice[]> {
    const nodes = (await shownNodes(this.#places, owner)).filter(({ kind }) => kind === 'block');
    const found = await Promise.all(
      nodes.map(async (node) => {
        const numbers = `${node.major}:${node.minor}`;
        const path = await this.#pathOf(numbers);
        return path === undefined ? [] : [{ name: nameOf(node, path), numbers, path }];
      }),
    );
    return found.flat();
  }

  /** undefined: there is no such device now. */
  async #pathOf(numbers: string): Promise<string | undefined> {
    const link = await linkAt(`/sys/dev/block/${numbers}`);
    return link?.startsWith('../../devices/') ? link.slice('../../'.length) : undefined;
  }

  async #follow(directory: string, wanted: Links): Promise<void> {
    const present = new Map<string, string>();
    for (const name of await this.#host.list(directory))
      present.set(name, (await linkAt(`${directory}/${name}`)) ?? '');
    for (const [name, target] of present) if (wanted.get(name) !== target) await unlink(`${directory}/${name}`);
    for (const [name, target] of wanted) {
      if (present.get(name) !== target) await symlink(target, `${directory}/${name}`);
    }
  }

  #viewOf(hostName: string): string {
    return `${this.#root}/${hostName}`;
  }

  #directory(owner: DeviceOwner, list: string): string {
    return `${this.#viewOf(owner.hostName)}/${list}`;
  }
}

/** As the kernel names what lies in a folder of /dev; what lies elsewhere has the kernel's own name. */
function nameOf({ path: inside }: Node, path: string): string {
  const name = inside.startsWith('dev/') ? inside.slice('dev/'.length).replaceAll('/', '!') : '';
  return ['', '.', '..'].includes(name) ? basename(path) : name;
}

function viewOf(devices: readonly BlockDevice[]): View {
  const block = new Map<string, string>();
  const numbers = new Map<string, string>();
  for (const device of devices) {
    if (block.has(device.name)) continue; // a kernel's name that is another's path
    block.set(device.name, device.path);
    // by number it has the same name, not the kernel's
    if (!numbers.has(device.numbers)) numbers.set(device.numbers, `../../block/${device.name}`);
  }
  const from = (up: string): Links => new Map([...block].map(([name, path]) => [name, `${up}${path}`]));
  return { block: from('../'), class: from('../../'), numbers };
}

/** As the kernel writes /proc/partitions, with the sizes of this moment. */
function partitionsOf(devices: readonly BlockDevice[]): string {
  const lines = devices.map(({ name, numbers }) => {
    const [major = '', minor = ''] = numbers.split(':');
    const blocks = Math.floor(Number(readKernelFile(`/sys/dev/block/${numbers}/size`) ?? 0) / SECTORS_PER_BLOCK);
    return `${major.padStart(4)} ${minor.padStart(8)} ${String(blocks).padStart(10)} ${name}\n`;
  });
  return `major minor  #blocks  name\n\n${lines.join('')}`;
}

/** undefined: no link, or nothing. */
function linkAt(path: string): Promise<string | undefined> {
  return readlink(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'EINVAL') return undefined;
    throw error;
  });
}
