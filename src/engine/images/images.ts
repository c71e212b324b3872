// Images: published from uploads, found by name or content, unpacked into pools when the first instance wants them.
import { join } from 'node:path';
import type { StorageDriver } from '#drivers/storage/driver.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import { AppError } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { EngineContext, ImageAccess, ImageMetadata, ImageSelector, UnpackRequest } from '../context.ts';
import type { ImageChanges } from '../db/images.ts';
import type { ImageRecord } from '../db/records.ts';
import type { StoragePools } from '../storage/storage-pools.ts';
import { formatOf, readMembers, readMetadataText } from './archive.ts';
import type { ImageFileSet, ImageFiles, StagedImage } from './image-files.ts';
import { parseMetadata } from './metadata.ts';
import { created, imageRow, imageUrl, type UploadedImage } from './new-image.ts';
import { Usage } from './usage.ts';

type Context = Pick<EngineContext, 'database' | 'events' | 'host' | 'locks' | 'log'>;

/** Fills `directory` with metadata.yaml, templates/ and rootfs/, trusting nothing in the files. */
export type ImageUnpacker = (request: {
  readonly files: ImageFileSet;
  readonly directory: string;
  readonly owners: IdMapRange | null;
  readonly signal: AbortSignal;
  readonly progress: (percent: number) => void;
}) => Promise<void>;

export interface ImagesOptions {
  readonly context: Context;
  readonly pools: StoragePools;
  readonly files: ImageFiles;
  readonly unpack: ImageUnpacker;
}

export class Images implements ImageAccess {
  readonly files: ImageFiles;
  readonly #context: Context;
  readonly #pools: StoragePools;
  readonly #unpack: ImageUnpacker;
  readonly #usage = new Map<string, Usage>();
  /** What is known to be unpacked: asking a pool costs a command. */
  readonly #unpacked = new WeakMap<StorageDriver, Set<string>>();
  readonly #metadata = new Map<string, ImageMetadata>();

  constructor({ context, pools, files, unpack }: ImagesOptions) {
    this.#context = context;
    this.#pools = pools;
    this.files = files;
    this.#unpack = unpack;
  }

  /** At start: removes what interrupted work left, on disk and in pools. */
  async clean(signal: AbortSignal): Promise<void> {
    const { database, log } = this.#context;
    const known = new Set(database.images.list().map(({ fingerprint }) => fingerprint));
    const removed = await this.files.clean(known);
    if (removed.length > 0) log.info('removed files of interrupted image work', { removed });
    for (const { name } of this.#pools.list().filter((pool) => this.#pools.isOpen(pool.name))) {
      const driver = this.#pools.driver(name);
      const orphans = (await driver.listImages(signal)).filter((fingerprint) => !known.has(fingerprint));
      for (const fingerprint of orphans) await driver.deleteImage(fingerprint, signal);
    }
  }

  resolve(project: string, { alias, fingerprint, properties }: ImageSelector): ImageRecord {
    const { aliases, images } = this.#context.database;
    if (alias !== undefined) return images.get(project, aliases.get(project, alias).target);
    if (fingerprint !== undefined) return images.get(project, fingerprint);
    const wanted = Object.entries(properties ?? {});
    const found = images.list(project).find((image) => wanted.every(([key, value]) => image.properties[key] === value));
    if (wanted.length === 0)
      throw new AppError('invalid', 'Must specify one of alias, fingerprint or properties for init from image');
    if (!found) throw new AppError('not_found', 'Image not found');
    return found;
  }

  async withUnpacked(request: UnpackRequest, use: () => Promise<void>, signal: AbortSignal): Promise<void> {
    const { fingerprint } = request;
    const usage = this.#usageOf(fingerprint);
    const { locks } = this.#context;
    // The usage begins inside the lock and goes on outside: others may use the image meanwhile, nobody may delete it.
    const using = await locks.run(
      `image/${fingerprint}`,
      async () => {
        await this.#ensureUnpacked(request, signal);
        const begun = usage.during(use);
        begun.catch(() => undefined);
        return { begun };
      },
      signal,
    );
    await using.begun;
  }

  async metadata(fingerprint: string): Promise<ImageMetadata> {
    const known = this.#metadata.get(fingerprint);
    if (known) return known;
    const { metadata } = this.files.paths(fingerprint);
    const text = await readMetadataText(this.#context.host, metadata, AbortSignal.timeout(60_000));
    const parsed = await parseMetadata(text);
    this.#metadata.set(fingerprint, parsed);
    return parsed;
  }

  async metadataDirectory(fingerprint: string, signal: AbortSignal): Promise<string> {
    const { host, locks, log } = this.#context;
    const archive = this.files.paths(fingerprint).metadata;
    const directory = `${archive}.metadata`;
    await locks.run(
      `image-metadata/${fingerprint}`,
      async () => {
        if (await host.exists(directory)) return;
        const { templates } = await this.metadata(fingerprint);
        const work = `${directory}.part`;
        await host.removeTree(work);
        await using revert = new Reverter(log);
        revert.add('files of the metadata', () => host.removeTree(work));
        await host.makeDirectory(join(work, 'templates'), { mode: 0o700 });
        await host.writeFile(join(work, 'metadata.yaml'), await readMetadataText(host, archive, signal));
        // Their names were checked with the metadata: no slash, no leading dot.
        const members = new Set(Object.values(templates).map(({ template }) => `templates/${template}`));
        for (const [member, content] of await readMembers(host, archive, { members, signal })) {
          await host.writeFile(join(work, member), content);
        }
        await host.rename(work, directory);
        revert.commit();
      },
      signal,
    );
    return directory;
  }

  /** Publishes a staged upload. The row comes last; what is left of an interrupted one is removed at the next start. */
  async publish(staged: StagedImage, upload: UploadedImage, signal: AbortSignal): Promise<ImageRecord> {
    const { fingerprint, files } = staged;
    if (upload.fingerprint !== undefined && upload.fingerprint !== fingerprint) {
      throw new AppError('invalid', `fingerprints don't match, got ${fingerprint} expected ${upload.fingerprint}`);
    }
    await formatOf(files.metadata);
    if (files.rootfs !== undefined) await formatOf(files.rootfs);
    const { host, locks, database, log } = this.#context;
    const metadata = await parseMetadata(await readMetadataText(host, files.metadata, signal));
    return locks.run(
      `image/${fingerprint}`,
      async () => {
        if (database.images.find(upload.project, fingerprint)) {
          throw new AppError('conflict', 'Image with same fingerprint already exists');
        }
        await using revert = new Reverter(log);
        if (!this.#isKnown(fingerprint)) {
          revert.add('image files', () => this.files.remove(fingerprint));
          await this.files.publish(staged);
        }
        const record = this.#record(staged, upload, metadata);
        revert.commit();
        return record;
      },
      signal,
    );
  }

  /** Before long work: AppError 'conflict' for a name that is taken, with LXD's text. */
  checkAliases(project: string, aliases: UploadedImage['aliases']): void {
    const taken = aliases.find(({ name }) => this.#context.database.aliases.find(project, name));
    if (taken) throw new AppError('conflict', `Alias already exists: ${taken.name}`);
  }

  /** What a copy is to have that its source does not say. */
  amend(image: ImageRecord, said: Partial<UploadedImage>): void {
    const { isPublic = false, filename = '', properties, profiles, expiresAt } = said;
    const changes: ImageChanges = {
      ...(isPublic && !image.isPublic && { isPublic }),
      ...(filename !== '' && { filename }),
      ...(properties && { properties: { ...image.properties, ...properties } }),
      ...(profiles && { profiles }),
      ...(expiresAt !== undefined && { expiresAt }),
    };
    if (Object.keys(changes).length > 0) this.update(image, changes);
  }

  update(image: ImageRecord, changes: ImageChanges): void {
    const { database, events } = this.#context;
    for (const profile of changes.profiles ?? []) {
      if (!database.profiles.find(image.profilesOf, profile)) {
        throw new AppError('invalid', `Profile '${profile}' doesn't exist`);
      }
    }
    database.images.update(image, changes);
    events.lifecycle({ action: 'image-updated', source: imageUrl(image), project: image.project });
  }

  /** Instances made of it keep what they have. The row goes first: what a crash leaves is removed at the next start. */
  async delete(image: ImageRecord, signal: AbortSignal): Promise<void> {
    const { database, events, locks } = this.#context;
    const { fingerprint, project } = image;
    await locks.run(
      `image/${fingerprint}`,
      async () => {
        await this.#usageOf(fingerprint).idle();
        database.images.delete(image.id);
        events.lifecycle({ action: 'image-deleted', source: imageUrl(image), project });
        // Another project may have it as well.
        if (this.#isKnown(fingerprint)) return;
        this.#metadata.delete(fingerprint);
        for (const { name } of this.#pools.list().filter((pool) => this.#pools.isOpen(pool.name))) {
          const driver = this.#pools.driver(name);
          await driver.deleteImage(fingerprint, signal);
          this.#unpackedIn(driver).delete(fingerprint);
        }
        await this.files.remove(fingerprint);
        this.#usage.delete(fingerprint);
      },
      signal,
    );
  }

  #isKnown(fingerprint: string): boolean {
    return this.#context.database.images.list().some((image) => image.fingerprint === fingerprint);
  }

  #record(staged: StagedImage, upload: UploadedImage, metadata: ImageMetadata): ImageRecord {
    const { database, events } = this.#context;
    const record = database.transaction(() => {
      const image = database.images.create(imageRow(staged, upload, metadata));
      for (const alias of upload.aliases) database.aliases.create(upload.project, alias, image.id);
      return image;
    });
    this.#metadata.set(staged.fingerprint, metadata);
    events.lifecycle(created(record));
    return record;
  }

  async #ensureUnpacked({ fingerprint, pool, progress }: UnpackRequest, signal: AbortSignal): Promise<void> {
    const { database } = this.#context;
    const records = database.images.list().filter((image) => image.fingerprint === fingerprint);
    if (records.length === 0) throw new AppError('not_found', 'Image not found');
    const driver = this.#pools.driver(pool);
    const unpacked = this.#unpackedIn(driver);
    if (!unpacked.has(fingerprint) && !(await driver.hasImage(fingerprint, signal))) {
      const files = await this.files.find(fingerprint);
      const report = progress ?? (() => undefined);
      const fill = (directory: string, owners: IdMapRange | null) =>
        this.#unpack({ files, directory, owners, signal, progress: report });
      await driver.createImage(fingerprint, fill, signal);
    }
    unpacked.add(fingerprint);
    const lastUsedAt = new Date().toISOString();
    for (const image of records) database.images.update(image, { lastUsedAt });
  }

  #unpackedIn(driver: StorageDriver): Set<string> {
    let known = this.#unpacked.get(driver);
    if (!known) this.#unpacked.set(driver, (known = new Set()));
    return known;
  }

  #usageOf(fingerprint: string): Usage {
    let usage = this.#usage.get(fingerprint);
    if (!usage) this.#usage.set(fingerprint, (usage = new Usage()));
    return usage;
  }
}
