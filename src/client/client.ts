// The typed client of LXD's REST API: one connection to one engine, be it lighterd, LXD or Incus.
import type { Readable } from 'node:stream';
import type { WebSocket } from 'ws';
import type { Log } from '#src/lib/log.ts';
import { silentLog } from '#src/lib/silent-log.ts';
import { Backups } from './backups.ts';
import { EventStream } from './events.ts';
import { Files } from './files.ts';
import { Images } from './images.ts';
import { Instances } from './instances.ts';
import { Operations } from './operations.ts';
import { Networks, Profiles, StoragePools } from './resources.ts';
import { Sessions } from './sessions.ts';
import { StorageVolumes } from './storage-volumes.ts';
import { openWebSocket } from './web-socket.ts';
import { type Endpoint, type Method, type Reply, type RequestOptions, Transport } from './transport.ts';
import type { EventType, Resources, Server } from './wire.ts';

export interface ClientOptions {
  readonly endpoint: Endpoint;
  /** Absent: the project `default`. */
  readonly project?: string;
  readonly log?: Log;
}

export class EngineClient implements Disposable {
  readonly instances: Instances;
  readonly images: Images;
  readonly backups: Backups;
  readonly profiles: Profiles;
  readonly storagePools: StoragePools;
  readonly storageVolumes: StorageVolumes;
  readonly networks: Networks;
  readonly sessions: Sessions;
  readonly files: Files;
  readonly operations: Operations;
  /** Operations and lifecycle; shared by all waits. */
  readonly events: EventStream;
  readonly #transport: Transport;
  readonly #log: Log;

  constructor({ endpoint, project, log = silentLog }: ClientOptions) {
    this.#log = log;
    this.#transport = new Transport(endpoint, project);
    this.events = this.newEventStream(['operation', 'lifecycle']);
    this.operations = new Operations(this.#transport, this.events);
    this.instances = new Instances(this.#transport, this.operations);
    this.images = new Images(this.#transport, this.operations);
    this.backups = new Backups(this.#transport, this.operations);
    this.files = new Files(this.#transport);
    this.sessions = new Sessions(this.#transport, this.operations);
    this.profiles = new Profiles(this.#transport);
    this.storagePools = new StoragePools(this.#transport);
    this.storageVolumes = new StorageVolumes(this.#transport, this.operations);
    this.networks = new Networks(this.#transport);
  }

  /** A stream of its own, closed by the caller. */
  newEventStream(types: readonly EventType[]): EventStream {
    const { endpoint, project } = this.#transport;
    return new EventStream({ endpoint, project, types, log: this.#log });
  }

  async server(signal?: AbortSignal): Promise<Server> {
    return (await this.#transport.request('GET', '/1.0', { signal })).envelope.metadata as Server;
  }

  /** What the machine of the engine has. */
  async resources(signal?: AbortSignal): Promise<Resources> {
    return (await this.#transport.request('GET', '/1.0/resources', { signal })).envelope.metadata as Resources;
  }

  /** Any request, for what has no method of its own. */
  async request(method: Method, path: string, options?: RequestOptions): Promise<Reply> {
    return this.#transport.request(method, path, options);
  }

  /** The same where the answer is not an envelope; the caller reads or destroys the stream. */
  async raw(path: string, options?: RequestOptions & { readonly method?: Method }): Promise<Readable> {
    return this.#transport.raw(path, options);
  }

  /** One channel of an operation, not open yet: listeners attached at once miss nothing. */
  operationSocket(id: string, secret: string): WebSocket {
    const { endpoint, project } = this.#transport;
    const query = new URLSearchParams({ secret, ...(project !== undefined && { project }) });
    return openWebSocket(endpoint, `/1.0/operations/${encodeURIComponent(id)}/websocket?${query.toString()}`);
  }

  close(): void {
    this.events.close();
    this.#transport.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
