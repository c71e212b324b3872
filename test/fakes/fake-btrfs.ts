// Subvolumes in memory: directories of a FakeHost that are remembered as such.
import { createHash } from 'node:crypto';
import { AppError } from '#src/lib/errors.ts';
import type { Btrfs, NestedSubvolume, SubvolumeIdentity, SubvolumeUsage } from '#src/host/btrfs/btrfs.ts';
import type { FakeHost } from './fake-host.ts';

export class FakeBtrfs implements Btrfs {
  /** Whether paths lie on btrfs. */
  on = true;
  readonly subvolumes = new Map<string, { readonly: boolean }>();
  readonly received = new Map<string, string>();
  readonly limits = new Map<string, number>();
  readonly #host: FakeHost;

  constructor(host: FakeHost) {
    this.#host = host;
  }

  isBtrfs(): Promise<boolean> {
    return Promise.resolve(this.on);
  }

  isSubvolume(path: string): Promise<boolean> {
    return Promise.resolve(this.subvolumes.has(path));
  }

  async create(path: string): Promise<void> {
    await this.#host.makeDirectory(path, { fresh: true });
    this.subvolumes.set(path, { readonly: false });
  }

  async snapshot(from: string, to: string, options: { readonly readonly?: boolean } = {}): Promise<void> {
    if (!this.subvolumes.has(from)) throw new AppError('not_found', `no subvolume ${from}`);
    if (await this.#host.exists(to)) throw new AppError('conflict', `${to} exists`);
    this.#host.calls.push(`snapshot ${from} ${to}`);
    await this.#host.copyTree(from, to);
    this.subvolumes.set(to, { readonly: options.readonly ?? false });
    for (const { path, readonly } of this.#below(from)) {
      this.subvolumes.set(`${to}/${path}`, { readonly });
    }
  }

  async remove(path: string): Promise<void> {
    if (!this.subvolumes.delete(path)) return;
    this.limits.delete(path);
    await this.#host.removeTree(path);
  }

  hasNested(path: string): Promise<boolean> {
    return Promise.resolve(this.#below(path).length > 0);
  }

  nested(path: string): Promise<readonly NestedSubvolume[]> {
    return Promise.resolve(this.#below(path));
  }

  #below(path: string): readonly NestedSubvolume[] {
    const found = [...this.subvolumes].filter(([name]) => name.startsWith(`${path}/`));
    const nested = found.map(([name, { readonly }]) => ({ path: name.slice(path.length + 1), readonly }));
    return nested.toSorted((a, b) => (a.path < b.path ? -1 : 1));
  }

  setReadonly(path: string, readonly: boolean): Promise<void> {
    this.subvolumes.set(path, { readonly });
    return Promise.resolve();
  }

  async publish(path: string, newPath: string): Promise<void> {
    if (await this.#host.exists(newPath)) throw new AppError('conflict', `${newPath} exists`);
    await this.#host.rename(path, newPath);
  }

  /** What the host's own rename() does to subvolumes. */
  moved(path: string, newPath: string): void {
    for (const [key, subvolume] of this.subvolumes) {
      if (key !== path && !key.startsWith(`${path}/`)) continue;
      this.subvolumes.delete(key);
      this.subvolumes.set(newPath + key.slice(path.length), subvolume);
    }
    const limit = this.limits.get(path);
    this.limits.delete(path);
    if (limit !== undefined) this.limits.set(newPath, limit);
  }

  limit(path: string, bytes: number | undefined): Promise<void> {
    if (bytes === undefined) this.limits.delete(path);
    else this.limits.set(path, bytes);
    return Promise.resolve();
  }

  limitOf(path: string): Promise<number | undefined> {
    return Promise.resolve(this.limits.get(path));
  }

  usage(): Promise<SubvolumeUsage | undefined> {
    return Promise.resolve(this.limits.size > 0 ? { referencedBytes: 0, exclusiveBytes: 0 } : undefined);
  }

  identity(path: string): Promise<SubvolumeIdentity> {
    const uuid = createHash('md5').update(path).digest('hex');
    return Promise.resolve({ uuid, receivedUuid: this.received.get(path) });
  }

  markReceived(path: string, uuid: string): Promise<void> {
    this.received.set(path, uuid);
    return Promise.resolve();
  }

  grow(path: string): Promise<void> {
    this.#host.calls.push(`grow ${path}`);
    return Promise.resolve();
  }
}
