// An engine in memory that speaks LXD's REST API on a unix socket, as far as the client and the virt driver use it.
import { createHash, randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type WebSocket, WebSocketServer } from 'ws';
import { FakeCustomVolumes, type FakeVolume } from './fake-custom-volumes.ts';
import { FakeGuestFiles } from './fake-guest-files.ts';
import { FakeRuns } from './fake-runs.ts';
import { tarOf } from './tar.ts';

export interface FakeLxdInstance {
  name: string;
  status: string;
  status_code: number;
  config: Record<string, string>;
  devices: Record<string, Record<string, string>>;
  profiles: string[];
  description: string;
  architecture: string;
  ephemeral: boolean;
  stateful: boolean;
  type: string;
  created_at: string;
  last_used_at: string;
  location: string;
  console: string;
  etag: number;
}

export interface FakeLxdImage {
  readonly fingerprint: string;
  readonly metadata: Buffer | undefined;
  readonly content: Buffer;
  readonly filename: string;
  readonly properties: Record<string, string>;
}

interface FakeOperation {
  readonly id: string;
  readonly class: 'task' | 'websocket';
  readonly description: string;
  status: string;
  status_code: number;
  readonly resources: Record<string, string[]>;
  metadata: Record<string, unknown> | null;
  readonly may_cancel: boolean;
  err: string;
}

export interface FakeLxdOptions {
  readonly extensions?: readonly string[];
  readonly serverVersion?: string;
  /** How long each operation runs. */
  readonly operationMs?: number;
  /** Init that does not react to a shut down. */
  readonly ignoresShutdown?: boolean;
  readonly pools?: readonly Record<string, unknown>[];
  readonly auth?: 'trusted' | 'untrusted';
  /** Programs that instances have. */
  readonly programs?: readonly string[];
}

class HttpError extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

const STATE = { Stopped: 102, Running: 103, Frozen: 110 } as const;

type Handler = (context: {
  readonly args: readonly string[];
  readonly body: any;
  readonly raw: Buffer;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
}) => unknown;

export class FakeLxd implements AsyncDisposable {
  readonly instances = new Map<string, FakeLxdInstance>();
  readonly images = new Map<string, FakeLxdImage>();
  readonly aliases = new Map<string, string>();
  /** `METHOD /path` of everything that came, in order. */
  readonly requests: string[] = [];
  /** Uploads that were broken off. */
  abortedUploads = 0;
  readonly #options: FakeLxdOptions;
  readonly #folder: string;
  readonly #guestFiles = new Map<string, FakeGuestFiles>();
  /** Instance → its snapshots. */
  readonly snapshots = new Map<string, string[]>();
  /** What was asked of instances by POST, in order. */
  readonly posted: { readonly path: string; readonly body: object }[] = [];
  readonly #operations = new Map<string, FakeOperation>();
  readonly volumes = new FakeCustomVolumes(() => this.instances.values());
  readonly #work = new Map<string, Promise<void>>();
  readonly #failures: {
    readonly match: RegExp;
    readonly code: number;
    readonly text: string;
    readonly late: boolean;
  }[] = [];
  readonly #sockets = new Set<WebSocket>();
  readonly #server = createServer((request, response) => void this.#serve(request, response));
  readonly #events = new WebSocketServer({ noServer: true });
  readonly runs: FakeRuns;
  #streamsAllowed = true;

  constructor(folder: string, options: FakeLxdOptions) {
    this.#folder = folder;
    this.#options = options;
    this.runs = new FakeRuns(options.programs ?? ['chpasswd']);
    this.#server.on('upgrade', (request, socket, head) => {
      this.requests.push(`WS ${request.url}`);
      if (!this.#streamsAllowed) return socket.destroy();
      this.#events.handleUpgrade(request, socket, head, (ws) => {
        if (request.url?.includes('secret=')) return this.runs.connect(request.url, ws);
        this.#sockets.add(ws);
        ws.on('close', () => this.#sockets.delete(ws));
      });
    });
  }

  static async start(options: FakeLxdOptions = {}): Promise<FakeLxd> {
    const fake = new FakeLxd(await mkdtemp(join(tmpdir(), 'fake-lxd-')), options);
    await fake.listen();
    return fake;
  }

  get socketPath(): string {
    return join(this.#folder, 'unix.socket');
  }

  get endpoint() {
    return { kind: 'unix', socketPath: this.socketPath } as const;
  }

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(this.socketPath, resolve));
  }

  /** What is in the root of an instance. */
  filesOf(name: string): FakeGuestFiles {
    const files = this.#guestFiles.get(name) ?? new FakeGuestFiles();
    this.#guestFiles.set(name, files);
    return files;
  }

  /** The daemon goes away; listen() brings it back. */
  async shutDown(): Promise<void> {
    this.breakStreams();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  breakStreams(): void {
    for (const socket of this.#sockets) socket.terminate();
  }

  allowStreams(allowed: boolean): void {
    this.#streamsAllowed = allowed;
  }

  get streamCount(): number {
    return this.#sockets.size;
  }

  /** The next matching request is answered with an error. */
  fail(match: RegExp, code: number, text: string): void {
    this.#failures.push({ match, code, text, late: false });
  }

  /** The next matching request is accepted and its operation fails. */
  failLater(match: RegExp, text: string): void {
    this.#failures.push({ match, code: 400, text, late: true });
  }

  lifecycle(action: string, source: string): void {
    this.#send({ type: 'lifecycle', metadata: { action, source } });
  }

  /** Something that nobody asked for through the API. */
  setStatus(name: string, status: keyof typeof STATE): void {
    const instance = this.#instance(name);
    instance.status = status;
    instance.status_code = STATE[status];
  }

  addInstance(name: string, config: Record<string, string> = {}): FakeLxdInstance {
    const instance: FakeLxdInstance = {
      name,
      status: 'Stopped',
      status_code: STATE.Stopped,
      config,
      devices: {},
      profiles: [],
      description: '',
      architecture: 'x86_64',
      ephemeral: false,
      stateful: false,
      type: 'container',
      created_at: '2026-01-02T03:04:05Z',
      last_used_at: '1970-01-01T00:00:00Z',
      location: 'none',
      console: '',
      etag: 1,
    };
    this.instances.set(name, instance);
    return instance;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.listening) await this.shutDown();
    await rm(this.#folder, { recursive: true, force: true });
  }

  #instance(name: string): FakeLxdInstance {
    const instance = this.instances.get(name);
    if (!instance) throw new HttpError(404, 'Instance not found');
    return instance;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://fake');
    const line = `${request.method} ${url.pathname}`;
    this.requests.push(line);
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer);
    } catch {
      this.abortedUploads += 1;
      return;
    }
    const raw = Buffer.concat(chunks);
    const isJson = request.headers['content-type']?.includes('json') === true;
    try {
      this.#failOnDemand(line);
      for (const [pattern, handler] of Object.entries(this.#routes)) {
        const match = new RegExp(`^${pattern}$`).exec(line);
        if (!match) continue;
        const args = match.slice(1).map(decodeURIComponent);
        const body: unknown = isJson && raw.length > 0 ? JSON.parse(raw.toString()) : undefined;
        const result = await handler({ args, body, raw, request, response, url });
        if (!response.writableEnded) this.#answer(response, line, result);
        return;
      }
      throw new HttpError(404, 'not found');
    } catch (error) {
      const code = error instanceof HttpError ? error.code : 500;
      response.writeHead(code, { 'content-type': 'application/json' });
      response.end(envelope({ type: 'error', error_code: code, error: (error as Error).message }));
    }
  }

  #failOnDemand(line: string): void {
    const index = this.#failures.findIndex(({ match, late }) => !late && match.test(line));
    const [failure] = index < 0 ? [] : this.#failures.splice(index, 1);
    if (failure) throw new HttpError(failure.code, failure.text);
  }

  #answer(response: ServerResponse, line: string, result: unknown): void {
    const operation = result instanceof Started ? result.operation : undefined;
    const etag = result instanceof Tagged ? { etag: `"${result.tag}"` } : {};
    const metadata = result instanceof Tagged ? result.value : result;
    const code = operation ? 202 : line.startsWith('POST') ? 201 : 200;
    response.writeHead(code, { 'content-type': 'application/json', ...etag });
    response.end(
      operation
        ? envelope({
            type: 'async',
            status: 'Operation created',
            status_code: 100,
            operation: `/1.0/operations/${operation.id}`,
            metadata: operation,
          })
        : envelope({ type: 'sync', status: 'Success', status_code: 200, metadata: metadata ?? {} }),
    );
  }

  #send(event: Record<string, unknown>): void {
    const text = JSON.stringify({
      timestamp: new Date().toISOString(),
      location: 'none',
      project: 'default',
      ...event,
    });
    for (const socket of this.#sockets) socket.send(text);
  }

  /** Starts an operation; its end is an event. */
  #start(line: string, resources: Record<string, string[]>, work: () => void | Record<string, unknown>): Started {
    const operation: FakeOperation = {
      id: randomUUID(),
      class: 'task',
      description: line,
      status: 'Running',
      status_code: 103,
      resources,
      metadata: null,
      may_cancel: false,
      err: '',
    };
    this.#operations.set(operation.id, operation);
    const index = this.#failures.findIndex(({ match, late }) => late && match.test(line));
    const [failure] = index < 0 ? [] : this.#failures.splice(index, 1);
    const end = (): void => {
      try {
        if (failure) throw new Error(failure.text);
        operation.metadata = work() ?? null;
        Object.assign(operation, { status: 'Success', status_code: 200 });
      } catch (error) {
        Object.assign(operation, { status: 'Failure', status_code: 400, err: (error as Error).message });
      }
      this.#send({ type: 'operation', metadata: { ...operation } });
    };
    // Without a delay the event overtakes the answer, as it may on a real server.
    const { operationMs = 0 } = this.#options;
    this.#work.set(
      operation.id,
      operationMs === 0
        ? Promise.resolve(end())
        : new Promise((resolve) => setTimeout(() => resolve(end()), operationMs)),
    );
    return new Started({ ...operation, status: 'Running', status_code: 103, err: '' });
  }

  #startRun(instance: string, command: readonly string[]): Started {
    const { fds, exitCode } = this.runs.start(command);
    const operation: FakeOperation = {
      id: randomUUID(),
      class: 'websocket',
      description: 'Executing command',
      status: 'Running',
      status_code: 103,
      resources: { instances: [`/1.0/instances/${instance}`] },
      metadata: { fds },
      may_cancel: false,
      err: '',
    };
    this.#operations.set(operation.id, operation);
    const ended = exitCode.then((code) => {
      Object.assign(operation, { status: 'Success', status_code: 200, metadata: { fds, return: code } });
      this.#send({ type: 'operation', metadata: { ...operation } });
    });
    this.#work.set(operation.id, ended);
    return new Started({ ...operation });
  }

  #volume(name = ''): FakeVolume {
    const volume = this.volumes.get(name);
    if (!volume) throw new HttpError(404, 'Storage volume not found');
    return volume;
  }

  /** Records live for seconds on a real server. */
  forgetOperations(): void {
    this.#operations.clear();
  }

  #changeState(name: string, action: string, force: boolean): void {
    const instance = this.#instance(name);
    const isStopped = instance.status_code === STATE.Stopped;
    if (action === 'start' && !isStopped) throw new Error('The instance is already running');
    if (action === 'stop' && isStopped) throw new Error('The instance is already stopped');
    if (!force && this.#options.ignoresShutdown && ['stop', 'restart'].includes(action)) {
      throw new Error('Failed shutting down instance, status is "Running": context deadline exceeded');
    }
    const status = {
      start: 'Running',
      stop: 'Stopped',
      restart: 'Running',
      freeze: 'Frozen',
      unfreeze: 'Running',
    } as const;
    this.setStatus(name, status[action as keyof typeof status]);
    if (action === 'start' || action === 'restart')
      instance.console += `booted ${instance.config['user.nova.hostname'] ?? name}\n`;
    const event = { start: 'started', stop: 'stopped', restart: 'restarted', freeze: 'paused', unfreeze: 'resumed' }[
      action
    ];
    this.lifecycle(`instance-${event}`, `/1.0/instances/${name}`);
  }

  #create(body: any): Started {
    if (body.source.type === 'image' && !this.images.has(body.source.fingerprint))
      throw new HttpError(404, 'Image not found');
    const name: string = body.name ?? 'clever-name';
    return this.#start('POST /1.0/instances', { instances: [`/1.0/instances/${name}`] }, () => {
      if (this.instances.has(name)) {
        throw new Error(
          'Failed creating instance record: Add instance info to the database: This "instances" entry already exists',
        );
      }
      const { config = {}, devices = {}, profiles = ['default'], description = '', ephemeral = false } = body;
      Object.assign(this.addInstance(name, config), { devices, profiles, description, ephemeral });
      if (body.start === true) this.#changeState(name, 'start', false);
    });
  }

  #publish({
    source,
    properties,
  }: {
    readonly source: { readonly name: string };
    readonly properties: Record<string, string>;
  }): Started {
    const [instance = '', snapshot = ''] = source.name.split('/');
    if (this.snapshots.get(instance)?.includes(snapshot) !== true)
      throw new HttpError(404, 'Instance snapshot not found');
    const content = tarOf({
      'metadata.yaml': JSON.stringify({ architecture: 'x86_64', properties }),
      'rootfs/sbin/init': '',
    });
    const fingerprint = createHash('sha256').update(content).digest('hex');
    return this.#start('POST /1.0/images', { images: [`/1.0/images/${fingerprint}`] }, () => {
      this.images.set(fingerprint, { fingerprint, metadata: undefined, content, filename: 'snapshot.tar', properties });
      return { fingerprint, size: String(content.length) };
    });
  }

  #upload(request: IncomingMessage, raw: Buffer): Started {
    const { metadata, content } = partsOf(request.headers['content-type'] ?? '', raw);
    const fingerprint = createHash('sha256')
      .update(metadata ?? '')
      .update(content)
      .digest('hex');
    const properties = Object.fromEntries(new URLSearchParams(String(request.headers['x-lxd-properties'] ?? '')));
    const filename = String(request.headers['x-lxd-filename']);
    return this.#start('POST /1.0/images', { images: [`/1.0/images/${fingerprint}`] }, () => {
      if (this.images.has(fingerprint)) throw new Error('Image with same fingerprint already exists');
      this.images.set(fingerprint, { fingerprint, metadata, content, filename, properties });
      return { fingerprint, size: String(content.length) };
    });
  }

  readonly #routes: Readonly<Record<string, Handler>> = {
    'GET /1\\.0': () => ({
      api_extensions: this.#options.extensions ?? ['instances', 'cloud_init'],
      api_version: '1.0',
      auth: this.#options.auth ?? 'trusted',
      config: { 'core.https_address': '[::]:8443' },
      environment: {
        server: 'lxd',
        server_name: 'fake-node',
        server_version: this.#options.serverVersion ?? '5.0.2',
        kernel_architecture: 'x86_64',
        architectures: ['x86_64', 'i686'],
        kernel_features: { idmapped_mounts: 'true' },
      },
    }),
    'GET /1\\.0/resources': () => ({
      cpu: {
        architecture: 'x86_64',
        total: 4,
        sockets: [{ name: 'Fake', vendor: 'Acme', cores: [{ threads: [{ id: 0, online: true }] }] }],
      },
      memory: { total: 8 * 1024 ** 3, used: 1024 ** 3 },
    }),
    'GET /1\\.0/storage-pools': () =>
      this.#options.pools ?? [
        { name: 'default', driver: 'zfs', description: '', status: 'Created', config: {}, used_by: [] },
      ],
    'GET /1\\.0/storage-pools/([^/]+)': ({ args }) => ({
      name: args[0],
      driver: 'zfs',
      description: '',
      config: {},
      used_by: [`/1.0/profiles/default`, '/1.0/instances/c1?project=default'],
    }),
    'GET /1\\.0/storage-pools/[^/]+/resources': () => ({
      space: { total: 100 * 1024 ** 3, used: 10 * 1024 ** 3 },
      inodes: { total: 1000, used: 10 },
    }),
    'GET /1\\.0/storage-pools/[^/]+/volumes/custom': () => this.volumes.views(),
    'POST /1\\.0/storage-pools/[^/]+/volumes/custom': ({ body }) => {
      if (!this.volumes.add(body.name, body.config)) throw new HttpError(409, 'Volume by that name already exists');
    },
    'GET /1\\.0/storage-pools/[^/]+/volumes/custom/([^/]+)': ({ args }) => this.volumes.view(this.#volume(args[0])),
    'PATCH /1\\.0/storage-pools/[^/]+/volumes/custom/([^/]+)': ({ args, body }) => {
      const volume = this.#volume(args[0]);
      volume.config = { ...volume.config, ...body.config };
    },
    'DELETE /1\\.0/storage-pools/[^/]+/volumes/custom/([^/]+)': ({ args }) => {
      const { name } = this.#volume(args[0]);
      if (this.volumes.isUsed(name)) throw new HttpError(400, 'The storage volume is still in use');
      this.volumes.remove(name);
    },
    'GET /1\\.0/profiles': () => [{ name: 'default', description: 'Default', config: {}, devices: {}, used_by: null }],
    'GET /1\\.0/profiles/default': () => ({
      name: 'default',
      description: '',
      config: {},
      devices: { root: { type: 'disk', path: '/', pool: 'default' } },
    }),
    'GET /1\\.0/networks': () => [
      {
        name: 'lxdbr0',
        type: 'bridge',
        description: '',
        managed: true,
        status: 'Created',
        config: { 'ipv4.address': '10.0.0.1/24' },
        used_by: [],
      },
    ],
    'GET /1\\.0/operations': () => ({
      running: [...this.#operations.values()].filter(({ status_code }) => status_code < 200),
    }),
    'GET /1\\.0/operations/([^/]+)/wait': async ({ args: [id = ''] }) => {
      if (!this.#operations.has(id)) throw new HttpError(404, 'Operation not found');
      await this.#work.get(id);
      return this.#operations.get(id);
    },
    'GET /1\\.0/instances': ({ url }) =>
      [...this.instances.values()].map((instance) => ({
        ...withoutConsole(instance),
        expanded_config: instance.config,
        expanded_devices: instance.devices,
        ...(url.searchParams.get('recursion') === '2' && { state: stateOf(instance), snapshots: null, backups: null }),
      })),
    'POST /1\\.0/instances': ({ body }) => this.#create(body),
    'GET /1\\.0/instances/([^/]+)': ({ args: [name = ''] }) => {
      const instance = this.#instance(name);
      return new Tagged({ ...withoutConsole(instance), expanded_config: instance.config }, String(instance.etag));
    },
    'PUT /1\\.0/instances/([^/]+)': ({ args: [name = ''], body, request }) => {
      const instance = this.#instance(name);
      const wanted = request.headers['if-match']?.replaceAll('"', '');
      if (wanted !== undefined && wanted !== String(instance.etag))
        throw new HttpError(412, `ETag doesn't match: ${wanted}`);
      return this.#start(`PUT /1.0/instances/${name}`, { instances: [`/1.0/instances/${name}`] }, () => {
        Object.assign(instance, {
          config: body.config ?? {},
          devices: body.devices ?? {},
          profiles: body.profiles ?? [],
          etag: instance.etag + 1,
        });
      });
    },
    'PATCH /1\\.0/instances/([^/]+)': ({ args: [name = ''], body }) => {
      const instance = this.#instance(name);
      Object.assign(instance.config, body.config);
      Object.assign(instance.devices, body.devices);
      instance.etag += 1;
    },
    'DELETE /1\\.0/instances/([^/]+)': ({ args: [name = ''] }) => {
      if (this.#instance(name).status_code !== STATE.Stopped) throw new HttpError(400, 'Instance is running');
      return this.#start(`DELETE /1.0/instances/${name}`, { instances: [`/1.0/instances/${name}`] }, () => {
        this.instances.delete(name);
        this.lifecycle('instance-deleted', `/1.0/instances/${name}`);
      });
    },
    'GET /1\\.0/instances/([^/]+)/files': ({ args: [name = ''], url, response }) => {
      this.#instance(name);
      const found = this.filesOf(name).get(url.searchParams.get('path') ?? '');
      if (!found) throw new HttpError(404, 'Not Found');
      const { kind, mode, content } = found;
      response.writeHead(200, { 'x-lxd-type': kind, 'x-lxd-mode': mode, 'x-lxd-uid': '0', 'x-lxd-gid': '0' });
      response.end(kind === 'directory' ? envelope({ type: 'sync', metadata: [] }) : content);
    },
    'POST /1\\.0/instances/([^/]+)/files': ({ args: [name = ''], url, request, raw }) => {
      this.#instance(name);
      const isPut = this.filesOf(name).put(url.searchParams.get('path') ?? '', request.headers, raw);
      if (!isPut) throw new HttpError(404, 'Not Found');
    },
    'GET /1\\.0/instances/([^/]+)/snapshots': ({ args: [name = ''] }) => {
      return (this.snapshots.get(name) ?? []).map((snapshot) => `/1.0/instances/${name}/snapshots/${snapshot}`);
    },
    'POST /1\\.0/instances/([^/]+)(?:/rebuild|/snapshots(?:/[^/]+)?)?': ({ args: [name = ''], body, url }) => {
      this.#instance(name);
      return this.#start(`POST ${url.pathname}`, { instances: [`/1.0/instances/${name}`] }, () => {
        this.posted.push({ path: url.pathname, body: body as object });
        if (url.pathname.endsWith('/snapshots'))
          this.snapshots.set(name, [...(this.snapshots.get(name) ?? []), body.name]);
      });
    },
    'POST /1\\.0/instances/([^/]+)/exec': ({ args: [name = ''], body }) => {
      if (this.#instance(name).status_code !== STATE.Running) throw new HttpError(400, 'Instance is not running');
      return this.#startRun(name, body.command);
    },
    'DELETE /1\\.0/instances/([^/]+)/snapshots/([^/]+)': ({ args: [name = '', snapshot = ''], url }) => {
      return this.#start(`DELETE ${url.pathname}`, { instances: [`/1.0/instances/${name}`] }, () => {
        this.snapshots.set(
          name,
          (this.snapshots.get(name) ?? []).filter((one) => one !== snapshot),
        );
      });
    },
    'GET /1\\.0/instances/([^/]+)/state': ({ args: [name = ''] }) => stateOf(this.#instance(name)),
    'PUT /1\\.0/instances/([^/]+)/state': ({ args: [name = ''], body }) => {
      this.#instance(name);
      return this.#start(`PUT /1.0/instances/${name}/state`, { instances: [`/1.0/instances/${name}`] }, () =>
        this.#changeState(name, body.action, body.force === true || body.timeout === 0),
      );
    },
    'GET /1\\.0/instances/([^/]+)/console': ({ args: [name = ''], response }) => {
      const { console } = this.#instance(name);
      if (console === '') throw new HttpError(500, 'open /var/log/lxd/c/console.log: no such file or directory');
      response.end(console);
    },
    'GET /1\\.0/images': () => [...this.images.values()].map((image) => this.#imageView(image)),
    'POST /1\\.0/images': ({ request, raw, body }) => (body?.source ? this.#publish(body) : this.#upload(request, raw)),
    'GET /1\\.0/images/aliases': () =>
      [...this.aliases].map(([name, target]) => ({ name, target, description: '', type: 'container' })),
    'POST /1\\.0/images/aliases': ({ body }) => {
      if (this.aliases.has(body.name)) throw new HttpError(409, `Alias "${body.name}" already exists`);
      this.aliases.set(body.name, body.target);
    },
    'GET /1\\.0/images/aliases/([^/]+)': ({ args: [name = ''] }) => {
      const target = this.aliases.get(name);
      if (target === undefined) throw new HttpError(404, 'Image alias not found');
      return { name, target, description: '', type: 'container' };
    },
    'GET /1\\.0/images/([^/]+)': ({ args: [fingerprint = ''] }) => {
      const image = [...this.images.values()].find((candidate) => candidate.fingerprint.startsWith(fingerprint));
      if (!image) throw new HttpError(404, 'Image not found');
      return this.#imageView(image);
    },
    'GET /1\\.0/images/([^/]+)/export': ({ args: [fingerprint = ''], response }) => {
      const image = this.images.get(fingerprint);
      if (!image) throw new HttpError(404, 'Image not found');
      response.end(image.content);
    },
    'DELETE /1\\.0/images/([^/]+)': ({ args: [fingerprint = ''] }) => {
      if (!this.images.has(fingerprint)) throw new HttpError(404, 'Image not found');
      return this.#start('DELETE image', {}, () => {
        this.images.delete(fingerprint);
        for (const [name, target] of this.aliases) if (target === fingerprint) this.aliases.delete(name);
      });
    },
  };

  #imageView({ fingerprint, properties, filename, content }: FakeLxdImage): Record<string, unknown> {
    const aliases = [...this.aliases]
      .filter(([, target]) => target === fingerprint)
      .map(([name]) => ({ name, description: '' }));
    const never = '1970-01-01T00:00:00Z';
    const times = { created_at: never, expires_at: never, last_used_at: never, uploaded_at: '2026-11-23T13:10:00Z' };
    return {
      fingerprint,
      properties,
      filename,
      aliases,
      size: content.length,
      architecture: 'x86_64',
      type: 'container',
      public: false,
      cached: false,
      auto_update: false,
      ...times,
    };
  }
}

class Started {
  readonly operation: FakeOperation;

  constructor(operation: FakeOperation) {
    this.operation = operation;
  }
}

class Tagged {
  readonly value: unknown;
  readonly tag: string;

  constructor(value: unknown, tag: string) {
    this.value = value;
    this.tag = tag;
  }
}

function envelope(fields: Record<string, unknown>): string {
  return JSON.stringify({
    type: 'sync',
    status: '',
    status_code: 0,
    operation: '',
    error_code: 0,
    error: '',
    metadata: null,
    ...fields,
  });
}

function withoutConsole({ console: _console, etag: _etag, ...instance }: FakeLxdInstance): Record<string, unknown> {
  return instance;
}

function stateOf({ status, status_code }: FakeLxdInstance): Record<string, unknown> {
  const runs = status !== 'Stopped';
  const addresses = [
    { family: 'inet', address: '10.0.0.5', netmask: '24', scope: 'global' },
    { family: 'inet6', address: 'fe80::1', netmask: '64', scope: 'link' },
  ];
  const eth0 = {
    addresses,
    hwaddr: '00:16:3e:00:00:01',
    host_name: 'veth1',
    mtu: 1500,
    state: 'up',
    type: 'broadcast',
    counters: { bytes_received: 2048 },
  };
  return {
    status,
    status_code,
    pid: runs ? 4242 : 0,
    processes: runs ? 3 : -1,
    cpu: { usage: runs ? 2_500_000_000 : 0 },
    memory: { usage: runs ? 796 * 1024 : 0, usage_peak: 0 },
    disk: null,
    network: runs ? { eth0 } : null,
  };
}

/** A split upload has the parts `metadata` and `rootfs`, anything else is a tarball as it is. */
function partsOf(contentType: string, raw: Buffer): { readonly metadata?: Buffer; readonly content: Buffer } {
  const boundary = /boundary=(.+)$/.exec(contentType)?.[1];
  if (boundary === undefined) return { content: raw };
  const parts: Record<string, Buffer> = {};
  const mark = Buffer.from(`--${boundary}`);
  for (let at = raw.indexOf(mark); at >= 0; ) {
    const next = raw.indexOf(mark, at + mark.length);
    if (next < 0) break;
    const part = raw.subarray(at + mark.length + 2, next - 2);
    const split = part.indexOf('\r\n\r\n');
    const name = /name="([^"]+)"/.exec(part.toString('latin1', 0, split))?.[1] ?? '';
    parts[name] = part.subarray(split + 4);
    at = next;
  }
  const { metadata, rootfs } = parts;
  if (!metadata || !rootfs || !raw.toString('latin1').endsWith(`--${boundary}--\r\n`))
    throw new HttpError(400, 'bad multipart body');
  return { metadata, content: rootfs };
}
