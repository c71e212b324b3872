// Where subvolumes lie in a pool (lxd-engine-contract sections 5 and 5.2), and how they are made and removed in one step.
import { randomUUID } from 'node:crypto';
import { dirname, join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { Host } from '#src/host/host.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { StorageContext, VolumeKind, VolumeRef } from '../driver.ts';
import { checkName, FOLDERS } from '../common/layout.ts';
import { removeIfEmpty } from '../common/remove-if-empty.ts';

const FOLDER_OF = { container: 'containers', custom: 'custom' } as const satisfies Record<VolumeKind, string>;
const NAME_OF = { container: 'instance', custom: 'volume' } as const;
/** Work in progress and waste; it lies beside what it becomes or was, because readonly subvolumes cannot leave their directory. */
const HIDDEN = '.lighter-';
/** Of this process: a pool that is opened again, as its configuration changes, is in use. */
const OWN = `${HIDDEN}${randomUUID().slice(0, 8)}-`;

export class Places {
  readonly #context: StorageContext;
  readonly #host: Host;

  constructor(context: StorageContext) {
    this.#context = context;
    this.#host = context.host;
  }

  get images(): string {
    return this.#folder('images');
  }

  image(fingerprint: string): string {
    return join(this.images, checkName('image', fingerprint));
  }

  volumes(kind: VolumeKind): string {
    return this.#folder(FOLDER_OF[kind]);
  }

  volume({ kind, name }: VolumeRef): string {
    return join(this.volumes(kind), checkName(NAME_OF[kind], name));
  }

  /** The folder of a volume's snapshots. */
  snapshots({ kind, name }: VolumeRef): string {
    return join(this.#folder(`${FOLDER_OF[kind]}-snapshots`), checkName(NAME_OF[kind], name));
  }

  snapshot(volume: VolumeRef, snapshot: string): string {
    if (/^\.{0,2}$|[/\0]/u.test(snapshot) || snapshot.startsWith(HIDDEN)) {
      throw new AppError('invalid', `invalid snapshot name ${JSON.stringify(snapshot)}`);
    }
    return join(this.snapshots(volume), snapshot);
  }

  /** Without what is not published. */
  async list(folder: string): Promise<readonly string[]> {
    return (await this.#host.list(folder)).filter((name) => !name.startsWith(HIDDEN)).sort();
  }

  /** A new name in the directory of `path`. */
  beside(path: string): string {
    return join(dirname(path), `${OWN}${randomUUID()}`);
  }

  /** `make` makes a subvolume at the path that it is given; nobody sees it before it is complete. */
  async publish(path: string, make: (work: string) => Promise<void>, signal: AbortSignal): Promise<void> {
    await using revert = new Reverter(this.#context.log);
    const work = this.beside(path);
    revert.add(`subvolume for ${path}`, () => this.#host.btrfs.remove(work));
    await make(work);
    signal.throwIfAborted();
    await this.#host.btrfs.publish(work, path);
    revert.commit();
  }

  /** The subvolume at `path` becomes the one that `make` makes, in one step. */
  async replace(path: string, make: (work: string) => Promise<void>, signal: AbortSignal): Promise<void> {
    await using cleanup = new Reverter(this.#context.log); // never committed: what is left there is waste
    const work = this.beside(path);
    cleanup.add(`subvolume that was ${path}`, () => this.#host.btrfs.remove(work));
    await make(work);
    signal.throwIfAborted();
    await this.#host.exchange(work, path);
  }

  /** Out of sight in one step. Absent is success. */
  async remove(path: string): Promise<void> {
    if (!(await this.#host.exists(path))) return;
    const waste = this.beside(path);
    await this.#host.rename(path, waste);
    await this.#host.btrfs.remove(waste);
  }

  /** With the folder that it leaves empty. */
  async removeSnapshot(volume: VolumeRef, snapshot: string): Promise<void> {
    await this.remove(this.snapshot(volume, snapshot));
    await removeIfEmpty(this.snapshots(volume));
  }

  /** The first of all that is kept in the pool. */
  async firstEntry(): Promise<string | undefined> {
    for (const name of Object.keys(FOLDERS) as (keyof typeof FOLDERS)[]) {
      const [first] = await this.#host.list(this.#folder(name));
      if (first !== undefined) return `${name}/${first}`;
    }
    return undefined;
  }

  /** Removes what crashes left. `ownToo`: for the time when nobody makes anything. */
  async clean({ ownToo = false }: { readonly ownToo?: boolean } = {}): Promise<void> {
    const isWaste = (entry: string): boolean => entry.startsWith(HIDDEN) && (ownToo || !entry.startsWith(OWN));
    for (const name of Object.keys(FOLDERS) as (keyof typeof FOLDERS)[]) {
      const folder = this.#folder(name);
      const isOfSnapshots = name.endsWith('-snapshots');
      for (const entry of await this.#host.list(folder)) {
        const path = join(folder, entry);
        if (isWaste(entry)) await this.discard(path);
        else if (isOfSnapshots) await this.#cleanSnapshots(path, isWaste);
      }
    }
  }

  async #cleanSnapshots(folder: string, isWaste: (entry: string) => boolean): Promise<void> {
    for (const entry of await this.#host.list(folder)) {
      if (isWaste(entry)) await this.#host.btrfs.remove(join(folder, entry));
    }
  }

  /** A subvolume, or a folder of some. Absent is success. */
  async discard(path: string): Promise<void> {
    if (await this.#host.btrfs.isSubvolume(path)) return this.#host.btrfs.remove(path);
    for (const entry of await this.#host.list(path)) await this.#host.btrfs.remove(join(path, entry));
    await this.#host.removeTree(path);
  }

  #folder(name: keyof typeof FOLDERS): string {
    return join(this.#context.poolPath, name);
  }
}
