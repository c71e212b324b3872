// What happens to images by itself: those that follow a name on another server are renewed, cached ones that nobody uses go.
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { Service } from '#src/lib/service.ts';
import { KeyedLock } from '#src/lib/keyed-lock.ts';
import type { EngineContext } from '../context.ts';
import type { ImageRecord } from '../db/records.ts';
import type { ServerConfig } from '../server/server-config.ts';
import type { StoragePools } from '../storage/storage-pools.ts';
import type { OperationHandle } from '../types.ts';
import type { ImageDownloads } from './downloads.ts';
import type { Images } from './images.ts';
import { imageUrl } from './new-image.ts';
import { imageSettings } from './settings.ts';

const HOUR_MS = 3600_000;
const DAY_HOURS = 24;
const SOON_MS = 500;

export interface UpkeepParts {
  readonly context: EngineContext;
  readonly images: Images;
  readonly pools: StoragePools;
  readonly downloads: ImageDownloads;
}

type Renewal = Pick<OperationHandle, 'signal' | 'setMetadata'>;

export class ImageUpkeep {
  readonly service: Service;
  readonly #parts: UpkeepParts;
  readonly #stop = new AbortController();
  /** One task at a time, so that they do not step on each other's toes. */
  readonly #tasks = new KeyedLock();
  #timer: NodeJS.Timeout | undefined;
  #hours = 0;

  constructor(parts: UpkeepParts) {
    this.#parts = parts;
    this.service = {
      name: 'upkeep of images',
      start: async () => this.#start(),
      stop: async () => {
        clearInterval(this.#timer);
        this.#stop.abort(new AppError('unavailable', 'the daemon stops'));
      },
    };
  }

  #start(): void {
    this.#startTask('Expiring images', (operation) => this.#expire(operation.signal));
    this.#startTask('Updating images', (operation) => this.#renewAll(operation));
    this.#timer = setInterval(() => {
      this.#hours++;
      if (this.#hours % DAY_HOURS === 0) this.#startTask('Expiring images', ({ signal }) => this.#expire(signal));
      this.#startTask('Updating images', (operation) => this.#renewAll(operation));
    }, HOUR_MS);
    this.#timer.unref();
  }

  /** A new setting holds at once: as soon as it is stored. */
  follow(config: ServerConfig): void {
    config.onChange('images.remote_cache_expiry', async () => {
      this.#soon(() => this.#startTask('Expiring images', ({ signal }) => this.#expire(signal)));
    });
    config.onChange('images.auto_update_interval', async () => {
      this.#hours = 0;
      this.#soon(() => this.#startTask('Updating images', (operation) => this.#renewAll(operation)));
    });
  }

  #soon(work: () => void): void {
    const timer = setTimeout(() => {
      if (!this.#stop.signal.aborted) work();
    }, SOON_MS);
    timer.unref();
  }

  /** An operation only when there is something to look at. */
  #startTask(description: string, work: (operation: OperationHandle) => Promise<void>): void {
    const { context } = this.#parts;
    if (!context.database.images.list().some(({ cached, autoUpdate }) => cached || autoUpdate)) return;
    context.operations.start({ class: 'task', description, resources: {} }, (operation) => {
      const signal = AbortSignal.any([operation.signal, this.#stop.signal]);
      return this.#tasks.run('task', () => work({ ...operation, signal }), signal);
    });
  }

  async #expire(signal: AbortSignal): Promise<void> {
    const { context, images } = this.#parts;
    for (const image of context.database.images.list().filter(({ cached }) => cached)) {
      const days = imageSettings(context, image.project).remoteCacheExpiryDays;
      const used = Date.parse(image.lastUsedAt) > 0 ? image.lastUsedAt : image.uploadedAt;
      if (days <= 0 || Date.parse(used) + days * DAY_HOURS * HOUR_MS > Date.now()) continue;
      await this.#attempt('remove an expired image', image, () => images.delete(image, signal), signal);
    }
  }

  async #renewAll(operation: Renewal): Promise<void> {
    const { context } = this.#parts;
    const { signal } = operation;
    const due = context.database.images.list().filter(({ autoUpdate, updateSource, project }) => {
      const hours = imageSettings(context, project).autoUpdateIntervalHours;
      return autoUpdate && updateSource !== null && hours > 0 && this.#hours % hours === 0;
    });
    for (const image of due) await this.#attempt('update an image', image, () => this.#renew(image, operation), signal);
  }

  /** What goes wrong with one image is no reason to forget the others. */
  async #attempt(what: string, image: ImageRecord, work: () => Promise<unknown>, signal: AbortSignal): Promise<void> {
    try {
      await work();
    } catch (error) {
      signal.throwIfAborted();
      const { fingerprint, project } = image;
      this.#parts.context.log.error(`failed to ${what}`, { fingerprint, project, error });
    }
  }

  /** POST …/refresh. */
  async refresh(image: ImageRecord, operation: OperationHandle): Promise<void> {
    const { events } = this.#parts.context;
    const { fingerprint, project } = image;
    try {
      const refreshed = await this.#tasks.run('task', () => this.#renew(image, operation), operation.signal);
      operation.setMetadata({ refreshed });
      if (refreshed) events.lifecycle({ action: 'image-refreshed', source: imageUrl(image), project });
    } catch (cause) {
      const text = `Failed to update image "${fingerprint}" in project "${project}": ${messageOf(cause)}`;
      throw new AppError('internal', text, { cause });
    }
  }

  /** Whether there was a newer one; it has the names and the place of the old one then. */
  async #renew(old: ImageRecord, operation: Renewal): Promise<boolean> {
    const { context, images, pools, downloads } = this.#parts;
    const { database } = context;
    const { updateSource, project } = old;
    if (!updateSource) throw new AppError('not_found', 'Image source not found');
    const { server = '', protocol = '', certificate = '', alias = '' } = updateSource;
    const source = { server, protocol, certificate, alias, secret: '', project: '' };
    const wanted = {
      project,
      source,
      isPublic: old.isPublic,
      autoUpdate: true,
      cached: old.cached,
      preferCached: false,
    };
    const image = await downloads.download(wanted, operation);
    const { fingerprint } = image;
    if (fingerprint === old.fingerprint) return false;
    database.transaction(() => {
      const { cached, lastUsedAt, autoUpdate } = old;
      database.images.update(image, { cached, lastUsedAt, autoUpdate });
      database.images.moveProfiles(old.id, image.id);
      database.aliases.move(old.id, image.id);
    });
    for (const { name } of pools.list().filter((pool) => pools.isOpen(pool.name))) {
      if (!(await pools.driver(name).hasImage(old.fingerprint, operation.signal))) continue;
      await images.withUnpacked({ fingerprint, pool: name }, async () => undefined, operation.signal);
    }
    database.images.update(image, { lastUsedAt: old.lastUsedAt });
    await images.delete(old, operation.signal);
    return true;
  }
}
