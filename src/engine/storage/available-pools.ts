// Which pools are available: those that were opened, as long as they are there. One may be taken away under the daemon: unmounted, exported,
// a disk of it gone. Who did that gives it back: nothing is mounted or imported here meanwhile, only looked for.
import type { StorageDriver } from '#drivers/storage/driver.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import { aborted, limited } from '#src/lib/wait.ts';
import type { EngineContext } from '../context.ts';
import { presentPool } from './present-pool.ts';

type Context = Pick<EngineContext, 'database' | 'locks' | 'log'>;
export type ReturnListener = (pool: string, signal: AbortSignal) => Promise<void>;

const WARNING = 'Storage pool unavailable';
const LOOK_MS = 5000;
const OPEN_MS = 60_000;

interface Lost {
  readonly driver: StorageDriver;
  readonly why: string;
}

export class AvailablePools {
  readonly #context: Context;
  readonly #open = new Map<string, StorageDriver>();
  readonly #lost = new Map<string, Lost>();
  readonly #listeners: ReturnListener[] = [];
  readonly #stopping = new AbortController();
  #timer: NodeJS.Timeout | undefined;

  constructor(context: Context) {
    this.#context = context;
  }

  start(): void {
    this.#timer = setInterval(() => void this.#findLost(), LOOK_MS).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#stopping.abort(new AppError('unavailable', 'shutting down'));
  }

  /** `listener` is called when a pool has become available that was not. */
  onReturn(listener: ReturnListener): void {
    this.#listeners.push(listener);
  }

  get(pool: string): StorageDriver | undefined {
    return this.#open.get(pool);
  }

  /** AppError 'unavailable'. */
  require(pool: string): StorageDriver {
    const driver = this.#open.get(pool);
    if (driver) return driver;
    throw unavailable(pool, this.#lost.get(pool)?.why);
  }

  /** Whether it was there once; it is for nobody but its taker to bring back. */
  isLost(pool: string): boolean {
    return this.#lost.has(pool);
  }

  set(pool: string, driver: StorageDriver): void {
    this.#lost.delete(pool);
    this.#open.set(pool, driver);
    this.#context.database.warnings.resolve(WARNING, urlOf(pool));
  }

  delete(pool: string): void {
    this.#open.delete(pool);
  }

  /** A driver that looks, before it relies on the pool, whether that still is there. */
  watched(pool: string, driver: StorageDriver): StorageDriver {
    const made: StorageDriver = presentPool(driver, () => this.#check(pool, made));
    return made;
  }

  /** Looks whether an open pool is still there, and whether one that was lost is there again. Never rejects. */
  async look(pool: string): Promise<void> {
    const driver = this.#open.get(pool);
    if (driver) await this.#check(pool, driver).catch(() => undefined);
    else await this.#find(pool);
  }

  warn(pool: string, error: unknown): void {
    const { database, log } = this.#context;
    log.error('storage pool is unavailable', { pool, error });
    const message = messageOf(error);
    database.warnings.raise({ type: WARNING, entityUrl: urlOf(pool), message, severity: 'high' });
  }

  /** What waited for the pool goes on. */
  async tellReturn(pool: string): Promise<void> {
    const { log } = this.#context;
    log.info('storage pool is available again', { pool });
    for (const listener of this.#listeners) {
      try {
        await listener(pool, this.#stopping.signal);
      } catch (error) {
        log.error('what was left undone without a storage pool failed again', { pool, error });
      }
    }
  }

  /** AppError 'unavailable' when it is gone; it is no open one any more then. */
  async #check(pool: string, driver: StorageDriver): Promise<void> {
    try {
      await present(driver, limited(LOOK_MS));
    } catch (error) {
      const why = messageOf(error);
      if (this.#open.get(pool) === driver) {
        this.#open.delete(pool);
        this.#lost.set(pool, { driver, why });
        this.warn(pool, error);
      }
      throw unavailable(pool, why, error);
    }
  }

  async #find(pool: string): Promise<void> {
    const lost = this.#lost.get(pool);
    const { log, locks } = this.#context;
    const key = `pool/${pool}`;
    if (!lost || locks.isBusy(key)) return;
    const signal = limited(OPEN_MS, this.#stopping.signal);
    const open = async (): Promise<void> => {
      await present(lost.driver, limited(LOOK_MS, signal));
      await lost.driver.openPool(signal);
      if (this.#lost.get(pool) === lost) this.set(pool, lost.driver);
    };
    try {
      await locks.run(key, open, signal);
    } catch (error) {
      log.debug('a storage pool that was lost is not back', { pool, error });
      return;
    }
    await this.tellReturn(pool);
  }

  async #findLost(): Promise<void> {
    // found ones leave the list meanwhile
    const pools = Array.from(this.#lost.keys());
    for (const pool of pools) await this.#find(pool);
  }
}

/** A file system that hangs does not answer at all. */
async function present(driver: StorageDriver, limit: AbortSignal): Promise<void> {
  const silence = aborted(limit).then(() => {
    throw new AppError('unavailable', 'it does not answer');
  });
  await Promise.race([driver.checkPresent?.(limit), silence]);
}

function urlOf(pool: string): string {
  return `/1.0/storage-pools/${pool}`;
}

function unavailable(pool: string, why?: string, cause?: unknown): AppError {
  const text = `Storage pool "${pool}" is unavailable on this server`;
  return new AppError('unavailable', why === undefined ? text : `${text}: ${why}`, { cause });
}
