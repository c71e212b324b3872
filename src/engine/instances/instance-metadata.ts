// What an instance keeps of its image, to be read and changed: its metadata, and the templates that are applied to its root.
import { constants } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import { limited } from '#src/lib/wait.ts';
import type { EngineContext, ImageMetadata } from '../context.ts';
import { parseMetadata } from '../images/metadata.ts';
import { metadataText, metadataView } from './image-metadata-file.ts';
import { type InstancePaths, instancePaths, lockKey } from './instance-paths.ts';
import type { InstanceInfo } from './instances.ts';

const LIMIT_MS = 60_000;
const MAX_TEMPLATES = 1000;
/** What LXD says of an instance that was made of nothing. */
const EMPTY = { architecture: '', creation_date: 0, expiry_date: 0, properties: null, templates: null };

export class InstanceMetadata {
  readonly #context: EngineContext;

  constructor(context: EngineContext) {
    this.#context = context;
  }

  /** In LXD's own names. */
  async get(info: InstanceInfo): Promise<object> {
    const metadata = await this.#read(info);
    this.#publish('instance-metadata-retrieved', info);
    return metadata === undefined ? EMPTY : metadataView(metadata);
  }

  /** `document`: in LXD's own names. AppError 'invalid' when it is no metadata. */
  async replace(info: InstanceInfo, document: object): Promise<void> {
    await this.#locked(info, async (paths) => {
      const metadata = await this.#check(info, document);
      await this.#context.host.writeFile(paths.metadata, metadataText(metadata), { mode: 0o600 });
    });
    this.#publish('instance-metadata-updated', info);
  }

  /** Maps are merged, members that are given replace others. */
  async merge(info: InstanceInfo, document: PartialDocument): Promise<void> {
    const current: PartialDocument = metadataView((await this.#read(info)) ?? (await this.#check(info, EMPTY)));
    await this.replace(info, {
      ...current,
      ...document,
      properties: { ...current.properties, ...document.properties },
      templates: { ...current.templates, ...document.templates },
    });
  }

  /** Names of the template files. */
  async templates(info: InstanceInfo): Promise<readonly string[]> {
    const found = await readdir(this.#paths(info).templates, { withFileTypes: true }).catch(absent([]));
    return found
      .filter((entry) => entry.isFile())
      .map(({ name }) => name)
      .toSorted();
  }

  /** AppError 'not_found' when there is none of that name. */
  async template(info: InstanceInfo, name: string): Promise<Buffer> {
    const file = await openTemplate(this.#paths(info), name, constants.O_RDONLY);
    try {
      const content = await file.readFile();
      this.#publish('instance-metadata-template-retrieved', info, { path: name });
      return content;
    } finally {
      await file.close();
    }
  }

  /** Makes or replaces it, in one step. */
  async writeTemplate(info: InstanceInfo, name: string, content: string): Promise<void> {
    requireTemplateName(name);
    const { host } = this.#context;
    await this.#locked(info, async ({ templates }) => {
      await host.makeDirectory(templates, { mode: 0o700 });
      const names = await host.list(templates);
      if (names.length >= MAX_TEMPLATES && !names.includes(name)) {
        throw new AppError('invalid', 'The instance has too many templates');
      }
      await host.writeFile(join(templates, name), content, { mode: 0o600 });
    });
    this.#publish('instance-metadata-template-created', info, { path: name });
  }

  async deleteTemplate(info: InstanceInfo, name: string): Promise<void> {
    await this.#locked(info, async (paths) => {
      await (await openTemplate(paths, name, constants.O_RDONLY)).close();
      await this.#context.host.removeTree(join(paths.templates, name));
    });
    this.#publish('instance-metadata-template-deleted', info, { path: name });
  }

  #paths({ record }: InstanceInfo): InstancePaths {
    return instancePaths(this.#context.paths, record);
  }

  async #read(info: InstanceInfo): Promise<ImageMetadata | undefined> {
    const { host } = this.#context;
    const { metadata } = this.#paths(info);
    return (await host.exists(metadata)) ? parseMetadata(await host.readFile(metadata)) : undefined;
  }

  /** An architecture that is not given is the instance's. */
  async #check({ record }: InstanceInfo, document: object): Promise<ImageMetadata> {
    const given = document as { readonly architecture?: string };
    const architecture =
      given.architecture === undefined || given.architecture === '' ? record.architecture : given.architecture;
    const metadata = await parseMetadata(JSON.stringify({ ...document, architecture }));
    for (const path of Object.keys(metadata.templates)) {
      if (!path.startsWith('/') || path.includes('\0'))
        throw new AppError('invalid', `Invalid template path "${path}"`);
    }
    return metadata;
  }

  /** Nothing else is done to the instance meanwhile: a start reads all of this. */
  async #locked(info: InstanceInfo, work: (paths: InstancePaths) => Promise<void>): Promise<void> {
    const { locks, database } = this.#context;
    const { record } = info;
    await locks.run(
      lockKey(record),
      async () => {
        if (database.instances.find(record.project, record.name)?.id !== record.id) {
          throw new AppError('not_found', 'Instance not found');
        }
        await work(this.#paths(info));
      },
      limited(LIMIT_MS),
    );
  }

  #publish(action: string, { record }: InstanceInfo, details?: Readonly<Record<string, unknown>>): void {
    const { name, project } = record;
    const source = `/1.0/instances/${name}`;
    this.#context.events.lifecycle({ action, source, project, ...(details && { context: details }) });
  }
}

/** A part of it, in LXD's names. */
export interface PartialDocument {
  readonly properties?: Readonly<Record<string, string>>;
  readonly templates?: Readonly<Record<string, object>>;
}

function requireTemplateName(name: string): void {
  if (name === '' || name.startsWith('.') || /[/\0]/.test(name) || Buffer.byteLength(name) > 255) {
    throw new AppError('invalid', 'Invalid template filename');
  }
}

/** A regular file: nothing leads out of the directory. */
async function openTemplate({ templates }: InstancePaths, name: string, flags: number) {
  requireTemplateName(name);
  const path = join(templates, name);
  const file = await open(path, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch((cause: unknown) => {
    throw new AppError('not_found', `Path "${path}" not found`, { cause });
  });
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw new AppError('not_found', `Path "${path}" not found`);
}

function absent<T>(value: T) {
  return (error: NodeJS.ErrnoException): T => {
    if (error.code === 'ENOENT') return value;
    throw error;
  };
}
