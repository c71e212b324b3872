// The file trees of instances, for those who work on their files: what a running one sees, or the mounted root of a stopped one.
import type { RuntimeDriver } from '#drivers/runtime/driver.ts';
import { ContainedTree } from '#src/host/contained/tree.ts';
import { AppError } from '#src/lib/errors.ts';
import { limited } from '#src/lib/wait.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { expander } from './expansion.ts';
import { idMapFromJson } from './idmap.ts';
import { lockKey } from './instance-paths.ts';
import type { InstanceRoots } from './instance-roots.ts';
import type { InstanceInfo } from './instances.ts';
import type { InstanceLifecycle } from './lifecycle.ts';
import type { Life, Supervisor } from './supervisor.ts';

const MOUNT_LIMIT_MS = 60_000;

export interface TreesParts {
  readonly context: EngineContext;
  readonly runtime: RuntimeDriver;
  readonly supervisor: Supervisor;
  readonly lifecycle: Pick<InstanceLifecycle, 'idMap'>;
  readonly roots: InstanceRoots;
}

export class InstanceTrees {
  readonly #parts: TreesParts;
  /** Of stopped instances, by id: who uses their mounted root now. */
  readonly #users = new Map<number, number>();

  constructor(parts: TreesParts) {
    this.#parts = parts;
  }

  /** Runs `work` on the tree, which stays the same one whatever happens to the instance meanwhile. */
  async use<T>({ record }: Pick<InstanceInfo, 'record'>, work: (tree: ContainedTree) => Promise<T>): Promise<T> {
    const life = this.#parts.supervisor.life(record.id);
    const running = life && (await this.#ofRunning(record, life));
    if (running) {
      using tree = running;
      return await work(tree);
    }
    return this.#useStopped(record, work);
  }

  /**
   * Like use(), for work that lasts as long as somebody likes: its signal aborts when the container's life ends, and before a
   * stopped instance is started or changed as a whole, which would have to wait for it or fail.
   */
  async session(
    info: Pick<InstanceInfo, 'record'>,
    work: (tree: ContainedTree, signal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    const { sessions } = this.#parts.supervisor;
    await this.use(info, async (tree) => {
      using session = sessions.begin(info.record.id);
      await work(tree, session.signal);
    });
  }

  /** undefined: it does not run any more. */
  async #ofRunning(record: InstanceRecord, { container }: Life): Promise<ContainedTree | undefined> {
    const { context, runtime } = this.#parts;
    const limit = limited(MOUNT_LIMIT_MS);
    const pid = await runtime.initPid(container, limit);
    if (pid === undefined) return undefined;
    const { config } = context.database.instances.get(record.project, record.name);
    const tree = ContainedTree.ofProcess(pid, idMapFromJson(config['volatile.idmap.current']));
    try {
      // The monitor keeps init's number from being used again: if it is still init's, it was so when the tree was opened.
      if ((await runtime.initPid(container, limit)) === pid) return tree;
    } catch (error) {
      tree[Symbol.dispose]();
      throw error;
    }
    tree[Symbol.dispose]();
    throw new AppError('unavailable', 'The instance is just stopping');
  }

  async #useStopped<T>(record: InstanceRecord, work: (tree: ContainedTree) => Promise<T>): Promise<T> {
    const { locks } = this.#parts.context;
    const limit = limited(MOUNT_LIMIT_MS);
    const opened = await locks.run(lockKey(record), () => this.#mount(record), limit);
    try {
      using tree = opened;
      return await work(tree);
    } finally {
      // Under the lock: an instance that is started meanwhile keeps its mount.
      await locks.run(lockKey(record), () => this.#release(record), limited(MOUNT_LIMIT_MS));
    }
  }

  async #mount(key: InstanceRecord): Promise<ContainedTree> {
    const { context, lifecycle, roots, supervisor } = this.#parts;
    const record = context.database.instances.get(key.project, key.name);
    const expanded = expander(context.database)(record);
    const idMap = await lifecycle.idMap(record, expanded.config);
    const root = await roots.mount(record, { expanded, idMap }, limited(MOUNT_LIMIT_MS));
    this.#users.set(record.id, (this.#users.get(record.id) ?? 0) + 1);
    try {
      return ContainedTree.ofDirectory(root.rootfsPath, root.owners);
    } catch (error) {
      await this.#release(record);
      throw new AppError(
        'internal',
        `The root of the instance cannot be opened (it is ${supervisor.status(record.id)})`,
        {
          cause: error,
        },
      );
    }
  }

  async #release(record: InstanceRecord): Promise<void> {
    const { context, supervisor } = this.#parts;
    const users = (this.#users.get(record.id) ?? 1) - 1;
    if (users > 0) {
      this.#users.set(record.id, users);
      return;
    }
    this.#users.delete(record.id);
    if (supervisor.status(record.id) !== 'Stopped') return;
    // Under another name, or gone, it is somebody else's to unmount.
    if (context.database.instances.find(record.project, record.name)?.id !== record.id) return;
    await this.#parts.roots.unmount(record, limited(MOUNT_LIMIT_MS));
  }
}
