// Keeps the records of instances in their volumes up to date (see folder-files.ts): a moment after each change, in the background, and at
// once where the content of a volume becomes another one. What a daemon that was killed did not write any more is written at the next start.
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { Service } from '#src/lib/service.ts';
import { limited } from '#src/lib/wait.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import type { EngineEvent, EventHub } from '../events/events.ts';
import { hostName, instancePaths, lockKey } from '../instances/instance-paths.ts';
import { folderFiles, noteOf, writeFolder } from './folder-files.ts';

/** Several changes at a time are written once, and not while everybody waits for the instance. */
const PAUSE_MS = 1000;
const ONE_LIMIT_MS = 10 * 60_000;
const NOT_WRITTEN = 'the record of an instance was not written to its volume';
/** The content of the volume is another one: what was noted does not count. */
const REPLACED = new Set(['instance-restored', 'instance-rebuilt', 'instance-created', 'instance-updated']);
/** Nothing of the instance itself changes. */
const IDLE =
  /^instance-(?:started|stopped|shutdown|restarted|paused|resumed|exec|console|file-|log-|metadata-retrieved|metadata-template-retrieved|backup-)/u;
const URL_OF_INSTANCE = /^\/1\.0\/instances\/([^/?]+)/u;

export class InstanceRecords implements Service {
  readonly name = 'records of instances';
  readonly #context: EngineContext;
  readonly #events: EventHub;
  readonly #pauseMs: number;
  readonly #stopping = new AbortController();
  /** By id; true: whatever was noted. */
  readonly #due = new Map<number, boolean>();
  #subscription: Disposable | undefined;
  #timer: NodeJS.Timeout | undefined;
  #round: Promise<void> | undefined;

  constructor(context: EngineContext, events: EventHub, { pauseMs = PAUSE_MS } = {}) {
    this.#context = context;
    this.#events = events;
    this.#pauseMs = pauseMs;
  }

  async start(): Promise<void> {
    const filter = { types: new Set(['lifecycle'] as const) };
    this.#subscription = this.#events.subscribe(filter, (_text, event) => this.#take(event));
    for (const { id } of this.#context.database.instances.list()) this.#due.set(id, false);
    this.#wake();
  }

  async stop(): Promise<void> {
    this.#subscription?.[Symbol.dispose]();
    clearTimeout(this.#timer);
    this.#stopping.abort(new AppError('unavailable', 'the daemon stops'));
    await this.#round;
  }

  #take({ metadata, project = 'default' }: EngineEvent): void {
    const action = String(metadata['action']);
    // What profiles and pools are is in the record, too.
    if (/^(?:profile|storage-pool)-/u.test(action)) {
      for (const { id } of this.#context.database.instances.list()) this.#isDue(id, false);
    } else if (!IDLE.test(action)) {
      const [, name = ''] = URL_OF_INSTANCE.exec(String(metadata['source'])) ?? [];
      const found = this.#context.database.instances.find(project, name);
      if (found) this.#isDue(found.id, REPLACED.has(action));
    }
    this.#wake();
  }

  #isDue(id: number, isReplaced: boolean): void {
    this.#due.set(id, isReplaced || this.#due.get(id) === true);
  }

  #wake(): void {
    if (this.#timer || this.#round || this.#due.size === 0 || this.#stopping.signal.aborted) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#round = this.#write().finally(() => {
        this.#round = undefined;
        this.#wake();
      });
    }, this.#pauseMs).unref();
  }

  async #write(): Promise<void> {
    const due = [...this.#due];
    this.#due.clear();
    const records = new Map(this.#context.database.instances.list().map((record) => [record.id, record]));
    for (const [id, isReplaced] of due) {
      if (this.#stopping.signal.aborted) return;
      const record = records.get(id);
      if (record) await this.#writeOne(record, isReplaced);
    }
  }

  /** What fails for one does not keep the others; it is tried again when something changes, or at the next start. */
  async #writeOne(key: InstanceRecord, isReplaced: boolean): Promise<void> {
    const { locks, database, log } = this.#context;
    const signal = limited(ONE_LIMIT_MS, this.#stopping.signal);
    try {
      const work = async (): Promise<void> => {
        const record = database.instances.find(key.project, key.name);
        if (record?.id === key.id) await recordInstance(this.#context, record, { isReplaced }, signal);
      };
      await locks.run(lockKey(key), work, signal);
    } catch (error) {
      if (this.#stopping.signal.aborted) return;
      log.warn(NOT_WRITTEN, { instance: key.name, error: messageOf(error) });
    }
  }
}

/** Writes what has changed; `isReplaced`: whatever was noted. The caller holds the lock of the instance. */
export async function recordInstance(
  context: EngineContext,
  record: InstanceRecord,
  { isReplaced = false }: { readonly isReplaced?: boolean },
  signal: AbortSignal,
): Promise<void> {
  const { host, pools, paths } = context;
  const storage = pools.driver(record.pool);
  if (!storage.withFolder) return;
  const note = noteOf(instancePaths(paths, record));
  const files = await folderFiles(context, record);
  const noted = !isReplaced && (await host.exists(note)) ? await host.readFile(note) : '';
  if (noted === files.digest) return;
  await storage.withFolder(hostName(record), (directory) => writeFolder(host, directory, files), signal);
  await host.writeFile(note, files.digest, { mode: 0o600 });
}

/**
 * After a step that gave the volume another content, which has an old record or none: at once, or whoever loses the database now loses the
 * instance. The step counts all the same when this fails, and the next change or start writes it. The caller holds the lock of the instance.
 */
export async function recordNewContent(
  context: EngineContext,
  key: Pick<InstanceRecord, 'project' | 'name'>,
  signal: AbortSignal,
): Promise<void> {
  const { database, host, log, paths } = context;
  const record = database.instances.get(key.project, key.name);
  try {
    await host.removeTree(noteOf(instancePaths(paths, record)));
    await recordInstance(context, record, {}, signal);
  } catch (error) {
    log.warn(NOT_WRITTEN, { instance: record.name, error: messageOf(error) });
  }
}
