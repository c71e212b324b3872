// Instances of the engine.
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { kindOf } from '#src/lib/errors.ts';
import type { CallOptions, Operations, PendingOperation } from './operations.ts';
import type { Transport } from './transport.ts';
import type {
  Instance,
  InstanceFull,
  InstancePost,
  InstancePut,
  InstanceSnapshotsPost,
  InstanceSource,
  InstancesPost,
  InstanceState,
  InstanceStatePut,
} from './wire.ts';

export interface InstanceWithTag {
  readonly instance: Instance;
  /** For the next update: it fails with 'conflict' when the instance changed meanwhile. */
  readonly etag: string | undefined;
}

export class Instances {
  readonly #transport: Transport;
  readonly #operations: Operations;

  constructor(transport: Transport, operations: Operations) {
    this.#transport = transport;
    this.#operations = operations;
  }

  async list(options: { readonly filter?: string; readonly signal?: AbortSignal } = {}): Promise<readonly Instance[]> {
    const query = { recursion: 1, filter: options.filter };
    const { envelope } = await this.#transport.request('GET', '/1.0/instances', { query, signal: options.signal });
    return (envelope.metadata ?? []) as readonly Instance[];
  }

  /** With state, snapshots and backups; one request, and dearer for the engine than list(). */
  async listFull(
    options: { readonly allProjects?: boolean; readonly signal?: AbortSignal } = {},
  ): Promise<readonly InstanceFull[]> {
    const { allProjects = false, signal } = options;
    const query = { recursion: 2, ...(allProjects && { 'all-projects': 'true', project: undefined }) };
    const { envelope } = await this.#transport.request('GET', '/1.0/instances', { query, signal });
    return (envelope.metadata ?? []) as readonly InstanceFull[];
  }

  async get(name: string, signal?: AbortSignal): Promise<Instance> {
    return (await this.getWithTag(name, signal)).instance;
  }

  async getWithTag(name: string, signal?: AbortSignal): Promise<InstanceWithTag> {
    const { envelope, headers } = await this.#transport.request('GET', instancePath(name), { signal });
    return { instance: envelope.metadata as Instance, etag: headers['etag'] };
  }

  /** Undefined when there is no such instance. */
  async find(name: string, signal?: AbortSignal): Promise<Instance | undefined> {
    try {
      return await this.get(name, signal);
    } catch (error) {
      if (kindOf(error) === 'not_found') return undefined;
      throw error;
    }
  }

  async create(instance: InstancesPost, options: CallOptions = {}): Promise<PendingOperation> {
    return this.#operations.start('POST', '/1.0/instances', { ...options, body: instance });
  }

  /** Replaces everything that can be set. */
  async update(
    name: string,
    instance: InstancePut,
    options: CallOptions & { readonly etag?: string | undefined } = {},
  ): Promise<PendingOperation> {
    const { etag, ...rest } = options;
    return this.#operations.start('PUT', instancePath(name), {
      ...rest,
      body: instance,
      headers: etag === undefined ? {} : { 'If-Match': etag },
    });
  }

  /** Merges config and devices by key; cannot remove one. */
  async patch(name: string, instance: InstancePut, signal?: AbortSignal): Promise<void> {
    await this.#transport.request('PATCH', instancePath(name), { body: instance, signal });
  }

  /** AppError 'conflict' when it runs. */
  async remove(name: string, options: CallOptions = {}): Promise<PendingOperation> {
    return this.#operations.start('DELETE', instancePath(name), options);
  }

  async state(name: string, signal?: AbortSignal): Promise<InstanceState> {
    const { envelope } = await this.#transport.request('GET', `${instancePath(name)}/state`, { signal });
    return envelope.metadata as InstanceState;
  }

  async setState(name: string, state: InstanceStatePut, options: CallOptions = {}): Promise<PendingOperation> {
    return this.#operations.start('PUT', `${instancePath(name)}/state`, { ...options, body: state });
  }

  /** Renames it, or moves it to another pool or project. */
  async move(name: string, body: InstancePost, options: CallOptions = {}): Promise<PendingOperation> {
    return this.#operations.start('POST', instancePath(name), { ...options, body });
  }

  /** A new root, with the settings that it has. */
  async rebuild(name: string, source: InstanceSource, options: CallOptions = {}): Promise<PendingOperation> {
    return this.#operations.start('POST', `${instancePath(name)}/rebuild`, { ...options, body: { source } });
  }

  async snapshotNames(name: string, signal?: AbortSignal): Promise<readonly string[]> {
    const { envelope } = await this.#transport.request('GET', `${instancePath(name)}/snapshots`, { signal });
    const urls = (envelope.metadata ?? []) as readonly string[];
    return urls.map((url) => decodeURIComponent(url.split('?')[0]?.split('/').at(-1) ?? ''));
  }

  async createSnapshot(
    name: string,
    body: InstanceSnapshotsPost,
    options: CallOptions = {},
  ): Promise<PendingOperation> {
    return this.#operations.start('POST', `${instancePath(name)}/snapshots`, { ...options, body });
  }

  async renameSnapshot(
    name: string,
    { from, to }: { readonly from: string; readonly to: string },
    options: CallOptions = {},
  ): Promise<PendingOperation> {
    const path = `${instancePath(name)}/snapshots/${encodeURIComponent(from)}`;
    return this.#operations.start('POST', path, { ...options, body: { name: to } });
  }

  async removeSnapshot(name: string, snapshot: string, options: CallOptions = {}): Promise<PendingOperation> {
    const path = `${instancePath(name)}/snapshots/${encodeURIComponent(snapshot)}`;
    return this.#operations.start('DELETE', path, options);
  }

  /** One of the log files that the engine keeps of an instance. */
  async log(name: string, file: string, signal?: AbortSignal): Promise<Readable> {
    return this.#transport.raw(`${instancePath(name)}/logs/${encodeURIComponent(file)}`, { signal });
  }

  async templates(name: string, signal?: AbortSignal): Promise<readonly string[]> {
    const { envelope } = await this.#transport.request('GET', templatesPath(name), { signal });
    return ((envelope.metadata ?? []) as readonly string[]).map((url) => url.slice(url.lastIndexOf('/') + 1));
  }

  async template(instance: string, name: string, signal?: AbortSignal): Promise<string> {
    return text(await this.#transport.raw(templatesPath(instance), { query: { path: name }, signal }));
  }

  /** Makes it, or replaces it. */
  async setTemplate(
    instance: string,
    { name, content }: { readonly name: string; readonly content: string },
    signal?: AbortSignal,
  ): Promise<void> {
    const headers = { 'Content-Type': 'application/octet-stream' };
    const body = Buffer.from(content);
    await this.#transport.request('POST', templatesPath(instance), { query: { path: name }, body, headers, signal });
  }

  async removeTemplate(instance: string, name: string, signal?: AbortSignal): Promise<void> {
    await this.#transport.request('DELETE', templatesPath(instance), { query: { path: name }, signal });
  }

  /** What the container printed on its console, as far as the engine keeps it. */
  async consoleLog(name: string, signal?: AbortSignal): Promise<Readable> {
    return this.#transport.raw(`${instancePath(name)}/console`, { signal });
  }
}

export function instancePath(name: string): string {
  return `/1.0/instances/${encodeURIComponent(name)}`;
}

function templatesPath(name: string): string {
  return `${instancePath(name)}/metadata/templates`;
}
