// A mount table in memory.
import type { IdMapRange } from '#src/host/id-map.ts';
import { idMapKey } from '#src/host/id-map.ts';
import type {
  DetachedTree,
  GivenMount,
  HeldPath,
  MountRequest,
  Mounts,
  TakenMount,
  UserNamespace,
} from '#src/host/mounts.ts';

export class FakeMounts implements Mounts {
  /** target → how it came there, oldest first. */
  readonly table = new Map<string, readonly string[]>();
  /** Whether file systems take id maps. */
  mappable = true;
  readonly #calls: string[];

  constructor(calls: string[]) {
    this.#calls = calls;
  }

  mount({ source, target, type, flags = [], data }: MountRequest): Promise<void> {
    const options = [...flags, ...(data === undefined ? [] : [data])].join(',');
    this.#put(target, `mount -t ${type}${options === '' ? '' : ` -o ${options}`} ${source} ${target}`);
    return Promise.resolve();
  }

  unmount(target: string): Promise<void> {
    const stack = this.table.get(target) ?? [];
    if (stack.length > 0) this.#calls.push(`umount ${target}`);
    if (stack.length > 1) this.table.set(target, stack.slice(0, -1));
    else this.table.delete(target);
    return Promise.resolve();
  }

  give({ from, target }: GivenMount, pid: number): Promise<void> {
    this.#calls.push(`give ${from} as ${target} to ${pid}`);
    return Promise.resolve();
  }

  takeBack({ target }: TakenMount, pid: number): Promise<void> {
    this.#calls.push(`take ${target} from ${pid}`);
    return Promise.resolve();
  }

  isMountPoint(path: string): Promise<boolean> {
    return Promise.resolve(this.table.has(path));
  }

  async isReadonly(): Promise<boolean> {
    return false;
  }

  mountsUnder(path: string): Promise<readonly string[]> {
    const inside = [...this.table.keys()].filter((target) => target === path || target.startsWith(`${path}/`));
    return Promise.resolve(inside.sort((a, b) => b.split('/').length - a.split('/').length));
  }

  async openBeneath(parent: string, path: string): Promise<HeldPath> {
    return { path: `${parent}/${path}`, [Symbol.dispose]: () => undefined };
  }

  canMapIds(): Promise<boolean> {
    return Promise.resolve(this.mappable);
  }

  bindMapped(source: string, target: string, map: IdMapRange): Promise<void> {
    this.#put(target, `bind-mapped ${source} ${target} ${idMapKey(map)}`);
    return Promise.resolve();
  }

  openMapped(source: string): Promise<DetachedTree> {
    return Promise.resolve({ path: source, [Symbol.dispose]() {} });
  }

  userNamespace(map: IdMapRange): Promise<UserNamespace> {
    return Promise.resolve({ path: `/fake/userns/${idMapKey(map)}` });
  }

  #put(target: string, how: string): void {
    this.#calls.push(how);
    this.table.set(target, [...(this.table.get(target) ?? []), how]);
  }
}
