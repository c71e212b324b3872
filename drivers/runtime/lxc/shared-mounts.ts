// Mounts for containers that run: made in a directory of the host that is shared with the container, from where they are put into
// place by a visitor to its mount namespace. Coming by propagation they keep their flags: the container cannot lift a read-only one.
import { randomBytes } from 'node:crypto';
import { rmdir, unlink } from 'node:fs/promises';
import type { Host } from '#src/host/host.ts';
import { KeyedLock } from '#src/lib/keyed-lock.ts';
import type { RunningContainer, RuntimeContainer, RuntimeMount } from '../driver.ts';
import { SHARED_MOUNTS_INSIDE } from './config.ts';

const TMPFS_OPTIONS = 'size=100k,mode=0711';

export class SharedMounts {
  readonly #host: Host;
  readonly #root: string;
  readonly #preparing = new KeyedLock();

  constructor(host: Host, root: string) {
    this.#host = host;
    this.#root = root;
  }

  directory({ name }: RuntimeContainer): string {
    return `${this.#root}/${name}`;
  }

  /** Before the container starts. Idempotent. */
  async prepare(container: RuntimeContainer): Promise<void> {
    await this.#preparing.run('', () => this.#prepareRoot());
    await this.#host.makeDirectory(this.directory(container), { mode: 0o711 });
  }

  /** Not twice at a time: a second mount would hide the directories of those who begin on the first one. */
  async #prepareRoot(): Promise<void> {
    const { mounts } = this.#host;
    await this.#host.makeDirectory(this.#root, { mode: 0o711 });
    if (!(await mounts.isMountPoint(this.#root))) {
      await mounts.mount({ source: 'tmpfs', target: this.#root, type: 'tmpfs', data: TMPFS_OPTIONS });
    }
    await mounts.mount({ source: '', target: this.#root, type: '', flags: ['shared'] });
  }

  async attach({ container, initPid, rootUid, rootGid }: RunningContainer, mount: RuntimeMount): Promise<void> {
    const { mounts } = this.#host;
    const id = `mount_${randomBytes(8).toString('hex')}`;
    const place = `${this.directory(container)}/${id}`;
    const kind = isFile(mount) ? 'file' : 'directory';
    if (kind === 'file') await this.#host.writeFile(place, '');
    else await this.#host.makeDirectory(place, { mode: 0o711 });
    try {
      const flags = mount.options.includes('rbind') ? (['bind', 'recursive'] as const) : (['bind'] as const);
      await mounts.mount({ source: mount.source, target: place, type: '', flags });
      const owner = { uid: rootUid, gid: rootGid };
      await mounts.give({ from: `${SHARED_MOUNTS_INSIDE}/${id}`, target: mount.target, kind, owner }, initPid);
    } finally {
      await mounts.unmount(place);
      // Not a tree: should the mount still be there, nothing of what is mounted may go.
      await (kind === 'file' ? unlink(place) : rmdir(place));
    }
  }

  async detach({ initPid, rootUid, rootGid }: RunningContainer, mount: Pick<RuntimeMount, 'target' | 'options'>) {
    const owner = { uid: rootUid, gid: rootGid };
    await this.#host.mounts.takeBack({ target: mount.target, removeFile: isFile(mount), owner }, initPid);
  }

  /** Places that a killed daemon did not come to take down: the container would keep what is mounted there. */
  async sweep(container: RuntimeContainer): Promise<void> {
    const directory = this.directory(container);
    for (const place of await this.#host.mounts.mountsUnder(directory)) await this.#host.mounts.unmount(place);
    for (const name of await this.#host.list(directory)) {
      const place = `${directory}/${name}`;
      // Not a tree, as above.
      await ((await this.#host.status(place)).kind === 'directory' ? rmdir(place) : unlink(place));
    }
  }

  /** After the container is gone. */
  async remove(container: RuntimeContainer): Promise<void> {
    const directory = this.directory(container);
    for (const place of await this.#host.mounts.mountsUnder(directory)) await this.#host.mounts.unmount(place);
    if (await this.#host.exists(directory)) await this.#host.removeTree(directory);
  }
}

function isFile({ options }: Pick<RuntimeMount, 'options'>): boolean {
  return options.includes('create=file');
}
