// Changes the owners of a root on the disk, where the kernel cannot map them: all of it or nothing, by way of a snapshot.
import { idMapKey, sameIdMap } from '#src/host/id-map.ts';
import type { OwnerShift } from '#src/host/host.ts';
import type { Zfs } from '#src/host/zfs.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { limited } from '#src/lib/wait.ts';
import type { StorageContext } from '../driver.ts';
import type { Flavour } from './flavour.ts';
import { PROPERTY, REMAP } from './names.ts';

export interface Mountable {
  readonly dataset: string;
  /** Where the dataset is mounted. */
  readonly path: string;
  readonly flavour: Flavour;
}

export interface Root extends Mountable {
  readonly rootfs: string;
}

/** Between the two maps in the property while the files are on their way from one to the other. */
const ON_THE_WAY = '>';
/** Before the map in the property when all files have it, and the snapshot is not needed any more. */
const ARRIVED = '=';
const UNDO_LIMIT_MS = 120_000;

export class OwnersOnDisk {
  readonly #context: StorageContext;
  readonly #zfs: Zfs;

  constructor(context: StorageContext, zfs: Zfs) {
    this.#context = context;
    this.#zfs = zfs;
  }

  /** Takes back a change that a crash cut off, or goes on with a restore. Returns the key of the map that is on the disk. */
  async recover(root: Mountable, property: string, signal: AbortSignal): Promise<string> {
    if (property.startsWith('@')) return this.restore(root, `${root.dataset}${property}`, signal);
    if (property.startsWith(ARRIVED)) return this.#finish(root.dataset, property.slice(ARRIVED.length), signal);
    const [from = '-', to] = property.split(ON_THE_WAY);
    if (to !== undefined) await this.#rollback(root, from, signal);
    return from === '-' ? idMapKey(null) : from;
  }

  /** Brings the dataset back to a snapshot, with the owners that are in it. What follows the snapshot is lost. */
  async restore({ dataset, path, flavour }: Mountable, snapshot: string, signal: AbortSignal): Promise<string> {
    const [, name = ''] = snapshot.split('@');
    const { [PROPERTY.owners]: now = '-' } = await this.#zfs.get(dataset, [PROPERTY.owners], signal);
    const { [PROPERTY.owners]: then = '-' } = await this.#zfs.get(snapshot, [PROPERTY.owners], signal);
    // A crash between the two would leave the files of then with the owners of now.
    if (now !== then) await this.#zfs.set(dataset, { [PROPERTY.owners]: `@${name}` }, signal);
    await flavour.unmount(dataset, path, signal);
    await this.#zfs.rollback(snapshot, signal);
    if (now !== then) await this.#zfs.set(dataset, { [PROPERTY.owners]: then }, signal);
    return then;
  }

  /** The root is mounted before and after. */
  async change(root: Root, { from, to }: OwnerShift, signal: AbortSignal): Promise<void> {
    if (sameIdMap(from, to)) return;
    const { dataset, rootfs } = root;
    const snapshot = `${dataset}@${REMAP}`;
    await this.#zfs.destroy(snapshot, signal); // of a change that did not begin
    await this.#zfs.snapshot(snapshot, signal);
    await using revert = new Reverter(this.#context.log);
    revert.add(`owners of ${dataset}`, () => this.#rollback(root, idMapKey(from), limited(UNDO_LIMIT_MS)));
    await this.#zfs.set(dataset, { [PROPERTY.owners]: `${idMapKey(from)}${ON_THE_WAY}${idMapKey(to)}` }, signal);
    await this.#context.host.shiftOwners(rootfs, { from, to }, signal);
    await this.#zfs.set(dataset, { [PROPERTY.owners]: `${ARRIVED}${idMapKey(to)}` }, signal);
    revert.commit();
    await this.#finish(dataset, idMapKey(to), signal);
  }

  async #finish(dataset: string, owners: string, signal: AbortSignal): Promise<string> {
    await this.#zfs.destroy(`${dataset}@${REMAP}`, signal);
    await this.#zfs.set(dataset, { [PROPERTY.owners]: owners }, signal);
    return owners;
  }

  async #rollback({ dataset, path, flavour }: Mountable, owners: string, signal: AbortSignal): Promise<void> {
    const snapshot = `${dataset}@${REMAP}`;
    await flavour.unmount(dataset, path, signal);
    await this.#zfs.rollback(snapshot, signal);
    await this.#zfs.set(dataset, { [PROPERTY.owners]: owners }, signal);
    await this.#zfs.destroy(snapshot, signal);
  }
}
