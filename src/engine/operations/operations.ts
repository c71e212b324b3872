// Operations: work behind a 202, with a record that clients watch (lxd-engine-contract section 2.1).
import { randomUUID } from 'node:crypto';
import type { WebSocket } from 'ws';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { aborted } from '#src/lib/wait.ts';
import type { EventHub } from '../events/events.ts';
import { inProject } from '../projects/project-url.ts';
import type { OperationHandle, Operations, OperationSpec } from '../types.ts';

const STATUS = { Running: 103, Cancelling: 104, Success: 200, Failure: 400, Cancelled: 401 } as const;
export type OperationStatus = keyof typeof STATUS;

/** How long the record outlives the end: clients poll for the result. */
const KEEP_MS = 5000;

/** The record as LXD's API shows it. */
export interface OperationView {
  readonly id: string;
  readonly class: OperationSpec['class'];
  readonly description: string;
  readonly created_at: string;
  readonly updated_at: string;
  readonly status: OperationStatus;
  readonly status_code: number;
  readonly resources: OperationSpec['resources'];
  readonly metadata: Readonly<Record<string, unknown>> | null;
  readonly may_cancel: boolean;
  readonly err: string;
  readonly location: string;
}

interface Entry {
  readonly id: string;
  readonly spec: OperationSpec;
  readonly createdAt: string;
  readonly controller: AbortController;
  readonly ended: Promise<void>;
  updatedAt: string;
  status: OperationStatus;
  metadata: Readonly<Record<string, unknown>> | null;
  error: string;
}

export interface OperationRegistryOptions {
  readonly events: EventHub;
  readonly log: Log;
  readonly keepMs?: number;
  /** What clients are told of an error; default its message. Never rejects. */
  readonly explain?: (error: unknown) => Promise<string>;
}

/** All operations of this process. Nothing of them outlives it: what they left half-done is cleaned at start. */
export class OperationRegistry implements Operations {
  readonly #entries = new Map<string, Entry>();
  readonly #events: EventHub;
  readonly #log: Log;
  readonly #keepMs: number;
  readonly #explain: (error: unknown) => Promise<string>;

  constructor({
    events,
    log,
    keepMs = KEEP_MS,
    explain = async (error) => messageOf(error),
  }: OperationRegistryOptions) {
    this.#events = events;
    this.#explain = explain;
    this.#log = log;
    this.#keepMs = keepMs;
  }

  start(spec: OperationSpec, work: (operation: OperationHandle) => Promise<void>): string {
    const { promise: ended, resolve } = Promise.withResolvers<void>();
    const createdAt = new Date().toISOString();
    const entry: Entry = {
      id: randomUUID(),
      spec,
      createdAt,
      updatedAt: createdAt,
      controller: new AbortController(),
      ended,
      status: 'Running',
      metadata: spec.metadata ?? null,
      error: '',
    };
    this.#entries.set(entry.id, entry);
    this.#publish(entry);
    void this.#run(entry, work).finally(resolve);
    return entry.id;
  }

  /** AppError 'not_found' with LXD's text. */
  get(id: string): OperationView {
    return viewOf(this.#entry(id));
  }

  project(id: string): string {
    return this.#entry(id).spec.project ?? 'default';
  }

  /** Of all projects when none is named. */
  list(project?: string): readonly OperationView[] {
    const entries = [...this.#entries.values()];
    return entries.filter(({ spec }) => project === undefined || (spec.project ?? project) === project).map(viewOf);
  }

  /** The operation when it has ended, or as it is when `signal` aborts. */
  async wait(id: string, signal: AbortSignal): Promise<OperationView> {
    const entry = this.#entry(id);
    await Promise.race([entry.ended, aborted(signal)]);
    return viewOf(entry);
  }

  /** Aborts its signal; it ends as soon as its work has noticed. */
  cancel(id: string): void {
    const entry = this.#entry(id);
    if (entry.status !== 'Running') throw new AppError('invalid', 'Only running operations can be cancelled');
    if (!mayCancel(entry.spec)) throw new AppError('invalid', "This operation can't be cancelled");
    this.#abort(entry);
    const { project } = entry.spec;
    const source = `/1.0/operations/${id}`;
    this.#events.lifecycle({ action: 'operation-cancelled', source, ...(project !== undefined && { project }) });
  }

  /** What takes a websocket that carries `secret`. AppError 'invalid' when it has ended, 'forbidden' for a bad secret. */
  connect(id: string, secret: string): (socket: WebSocket) => void {
    const { spec, status } = this.#entry(id);
    if (spec.class !== 'websocket') throw new AppError('invalid', 'Only websocket operations can be connected');
    if (status !== 'Running') throw new AppError('invalid', 'Only running operations can be connected');
    const taker = spec.connect?.(secret);
    if (!taker) throw new AppError('forbidden', 'not authorized');
    return taker;
  }

  /** Whether `secret` is the one of a token or websocket operation: its holder may wait for it without being trusted. */
  hasSecret(id: string, secret: string): boolean {
    const { metadata } = this.#entry(id);
    const fds = metadata?.['fds'];
    const secrets = [metadata?.['secret'], ...(typeof fds === 'object' && fds !== null ? Object.values(fds) : [])];
    return secret !== '' && secrets.includes(secret);
  }

  /** A running token operation of this kind whose metadata has this secret, ended by its use. */
  useToken(kind: string, secret: string): OperationView | undefined {
    const entry = [...this.#entries.values()].find(
      ({ spec, status, metadata }) =>
        status === 'Running' && spec.class === 'token' && spec.description === kind && metadata?.['secret'] === secret,
    );
    if (!entry) return undefined;
    const view = viewOf(entry);
    this.#abort(entry);
    return view;
  }

  /** At the end of the daemon: cancels what can be cancelled, waits for the rest until `signal` aborts. */
  async drain(signal: AbortSignal): Promise<void> {
    const running = [...this.#entries.values()].filter(({ status }) => status === 'Running' || status === 'Cancelling');
    for (const entry of running) if (mayCancel(entry.spec)) this.#abort(entry);
    await Promise.race([Promise.all(running.map(({ ended }) => ended)), aborted(signal)]);
    for (const entry of running)
      if (!isOver(entry)) entry.controller.abort(new AppError('unavailable', 'shutting down'));
  }

  async #run(entry: Entry, work: (operation: OperationHandle) => Promise<void>): Promise<void> {
    const { id, controller, spec } = entry;
    const setMetadata = (metadata: Readonly<Record<string, unknown>>) => {
      if (isOver(entry)) return;
      entry.metadata = { ...entry.metadata, ...metadata };
      this.#publish(entry);
    };
    try {
      await work({ id, signal: controller.signal, setMetadata });
      this.#end(entry, controller.signal.aborted && spec.class === 'token' ? 'Cancelled' : 'Success');
    } catch (error) {
      entry.error = await this.#explain(error);
      this.#log.debug('operation failed', { id, description: spec.description, error });
      this.#end(entry, entry.status === 'Cancelling' ? 'Cancelled' : 'Failure');
    }
  }

  #end(entry: Entry, status: OperationStatus): void {
    entry.status = status;
    this.#publish(entry);
    setTimeout(() => this.#entries.delete(entry.id), this.#keepMs).unref();
  }

  #abort(entry: Entry): void {
    entry.status = 'Cancelling';
    this.#publish(entry);
    entry.controller.abort(new AppError('conflict', 'Cancelled'));
  }

  #publish(entry: Entry): void {
    entry.updatedAt = new Date().toISOString();
    this.#events.publish('operation', { ...viewOf(entry) }, entry.spec.project ?? 'default');
  }

  #entry(id: string): Entry {
    const entry = this.#entries.get(id);
    if (!entry) throw new AppError('not_found', 'Operation not found');
    return entry;
  }
}

export function createOperations(options: OperationRegistryOptions): OperationRegistry {
  return new OperationRegistry(options);
}

function mayCancel(spec: OperationSpec): boolean {
  return spec.mayCancel ?? spec.class !== 'task';
}

function isOver({ status }: Entry): boolean {
  return STATUS[status] >= STATUS.Success;
}

function resourcesOf({ resources, project = 'default' }: OperationSpec): OperationSpec['resources'] {
  if (project === 'default') return resources;
  const inIt = (urls: readonly string[]) => urls.map((url) => inProject(url, project));
  return Object.fromEntries(Object.entries(resources).map(([kind, urls]) => [kind, inIt(urls)]));
}

function viewOf({ id, spec, createdAt, updatedAt, status, metadata, error }: Entry): OperationView {
  return {
    id,
    class: spec.class,
    description: spec.description,
    created_at: createdAt,
    updated_at: updatedAt,
    status,
    status_code: STATUS[status],
    resources: resourcesOf(spec),
    metadata,
    may_cancel: mayCancel(spec),
    err: error,
    location: 'none',
  };
}
