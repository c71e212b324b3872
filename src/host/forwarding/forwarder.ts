// The daemon's end of the forward server: starts it with the first proxy, finds it again after a restart, and gives a new one
// everything when one was killed.
import { spawn, type SpawnOptions } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { lstat, mkdir, rm, stat, truncate } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { atNormalPriority } from '#src/lib/priority.ts';
import { poll } from '#src/lib/wait.ts';
import { HELPER_FLAGS, helperEntry, helperEnvironment } from '../helpers/helper-process.ts';
import {
  CONTROL_SOCKET,
  FORWARD_VERSION,
  type ForwardAnswer,
  type ForwardRequest,
  type ForwardSpec,
} from './messages.ts';

const START_LIMIT_MS = 30_000;
const ANSWER_LIMIT_MS = 30_000;
const MAX_LOG_BYTES = 1 << 20;
/** What it needs as root; the rest of root's rights it never has. */
const CAPABILITIES = [
  'sys_admin',
  'sys_ptrace',
  'net_bind_service',
  'setuid',
  'setgid',
  'chown',
  'fowner',
  'dac_override',
];

export interface ForwarderOptions {
  /** For the control socket and the log. */
  readonly directory: string;
  readonly log: Log;
}

interface Connection {
  readonly socket: Socket;
  readonly waiting: PromiseWithResolvers<ForwardAnswer>[];
}

export class Forwarder {
  readonly #directory: string;
  readonly #log: Log;
  /** What the server carries, or should. */
  readonly #wanted = new Map<string, ForwardSpec>();
  #connection: Promise<Connection> | undefined;

  constructor({ directory, log }: ForwarderOptions) {
    this.#directory = directory;
    this.#log = log;
  }

  /** What is there already, and the same, stays with its connections. AppError with the reason when it cannot listen. */
  async add(spec: ForwardSpec): Promise<void> {
    const { error } = await this.#ask({ ask: 'add', spec });
    if (error !== undefined) throw new AppError('invalid', error);
    this.#wanted.set(spec.id, spec);
  }

  /** Absent is success, and so is a server that does not run. A socket that a killed one left at `socketPath` goes. */
  async remove(id: string, socketPath?: string): Promise<void> {
    this.#wanted.delete(id);
    if (this.#connection || (await this.#isThere())) await this.#ask({ ask: 'remove', id });
    if (socketPath !== undefined) await removeDeadSocket(socketPath);
  }

  async #ask(request: ForwardRequest): Promise<ForwardAnswer> {
    try {
      return await this.#askOnce(request);
    } catch {
      return this.#askOnce(request); // it has just ended, by itself or killed
    }
  }

  async #askOnce(request: ForwardRequest): Promise<ForwardAnswer> {
    this.#connection ??= this.#connect();
    const connection = await this.#connection.catch((error: unknown) => {
      this.#connection = undefined;
      throw error;
    });
    return askOn(connection, request);
  }

  async #connect(): Promise<Connection> {
    const found = await this.#open();
    if (found) {
      const { version } = await askOn(found, { ask: 'version' });
      if (version === FORWARD_VERSION) return this.#follow(found);
      await askOn(found, { ask: 'exit' });
      await once(found.socket, 'close');
    }
    await this.#start();
    const started = await poll(() => this.#open(), 10, AbortSignal.timeout(START_LIMIT_MS));
    return this.#follow(started);
  }

  #isThere(): Promise<boolean> {
    return lstat(join(this.#directory, CONTROL_SOCKET)).then(
      () => true,
      () => false,
    );
  }

  /** undefined: no server listens. */
  async #open(): Promise<Connection | undefined> {
    const socket = connect(join(this.#directory, CONTROL_SOCKET));
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
    });
    if (!isOpen) return undefined;
    const waiting: PromiseWithResolvers<ForwardAnswer>[] = [];
    const nothing = (): void => undefined; // "close" follows
    createInterface({ input: socket })
      .on('line', (line) => waiting.shift()?.resolve(JSON.parse(line) as ForwardAnswer))
      .on('error', nothing); // readline passes the socket's on: a server that is killed over a request resets the connection
    socket.on('error', nothing);
    socket.on('close', () => {
      for (const one of waiting.splice(0)) one.reject(new AppError('unavailable', 'the forward server ended'));
    });
    socket.unref();
    return { socket, waiting };
  }

  #follow(connection: Connection): Connection {
    connection.socket.once('close', () => {
      this.#connection = undefined;
      if (this.#wanted.size > 0) void this.#addAgain();
    });
    return connection;
  }

  /** The server was killed: another one begins where it ended, without its connections. */
  async #addAgain(): Promise<void> {
    this.#log.warn('the forward server ended, starting another one', { proxies: this.#wanted.size });
    for (const spec of this.#wanted.values()) {
      try {
        const { error } = await this.#ask({ ask: 'add', spec });
        if (error !== undefined) this.#log.warn('a proxy does not listen any more', { proxy: spec.id, error });
      } catch (error) {
        this.#log.error('a proxy does not listen any more', { proxy: spec.id, error: messageOf(error) });
      }
    }
  }

  async #start(): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    await rm(join(this.#directory, CONTROL_SOCKET), { force: true });
    const logFile = join(this.#directory, 'log');
    const { size } = await stat(logFile).catch(() => ({ size: 0 }));
    if (size > MAX_LOG_BYTES) await truncate(logFile);
    const log = openSync(logFile, 'a', 0o600);
    try {
      const bounds = ['-all', ...CAPABILITIES.map((name) => `+${name}`)].join(',');
      const limits = ['--bounding-set', bounds, '--inh-caps', '-all', '--no-new-privs', '--'];
      const node = [process.execPath, ...HELPER_FLAGS, '--single-threaded'];
      const args = [...limits, ...node, helperEntry('forward-server'), this.#directory];
      const options: SpawnOptions = {
        cwd: '/',
        // It ends neither with the daemon nor with its terminal.
        detached: true,
        stdio: ['ignore', 'ignore', log],
        env: helperEnvironment(),
      };
      const server = atNormalPriority(() => spawn('setpriv', args, options));
      server.on('error', (error) => this.#log.error('the forward server does not start', { error }));
      server.unref();
    } finally {
      closeSync(log);
    }
  }
}

async function removeDeadSocket(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found?.isSocket() !== true) return;
  const socket = connect(path);
  const isDead = await new Promise<boolean>((resolve) => {
    socket.once('connect', () => resolve(false));
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
  });
  socket.destroy();
  if (isDead) await rm(path, { force: true });
}

async function askOn({ socket, waiting }: Connection, request: ForwardRequest): Promise<ForwardAnswer> {
  if (socket.destroyed) throw new AppError('unavailable', 'the forward server ended');
  const answer = Promise.withResolvers<ForwardAnswer>();
  waiting.push(answer);
  socket.write(`${JSON.stringify(request)}\n`);
  const limit = setTimeout(() => socket.destroy(), ANSWER_LIMIT_MS);
  socket.ref();
  try {
    return await answer.promise;
  } finally {
    clearTimeout(limit);
    if (waiting.length === 0) socket.unref();
  }
}
