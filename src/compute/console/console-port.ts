// One TCP port of this machine that leads to the console of one instance, as long as somebody may come to it.
import type { Server, Socket } from 'node:net';
import { kindOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import type { VirtDriver } from '#drivers/virt/driver.ts';

/** A proxy connects right after it has asked; its question admits one connection for this long. */
const ADMISSION_MS = 30_000;
/** A proxy that is gone without a word is noticed by the kernel. */
const KEEP_ALIVE_MS = 30_000;
const LAST_LINE_MS = 1000;
/** Proxies lose what comes together with the end. */
const BEFORE_END_MS = 100;
const TAKEN_OVER = '\r\n[another client has taken over this console]\r\n';
const UNAVAILABLE = '\r\n[this console is not available now: the server does not run, or its host has the console]\r\n';
const FAILED = '\r\n[this console cannot be reached now]\r\n';

interface Session {
  readonly socket: Socket;
  /** Resolves when the console is free again; never rejects. */
  readonly done: Promise<void>;
}

export interface ConsolePortParts {
  readonly uuid: string;
  readonly virt: VirtDriver;
  readonly log: Log;
  /** Called once, when the port is closed. */
  readonly onClose: () => void;
}

export class ConsolePort {
  readonly number: number;
  readonly #server: Server;
  readonly #parts: ConsolePortParts;
  #session: Session | undefined;
  /** Until when each connection that was announced may come. */
  #admissions: number[] = [];
  #endsAt = 0;
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  /** `server` listens already, and has no connection listener yet. */
  constructor(server: Server, number: number, parts: ConsolePortParts) {
    this.number = number;
    this.#server = server;
    this.#parts = parts;
    server.on('connection', (socket) => this.#take(socket));
    server.on('error', (error) => {
      parts.log.warn('port of a console failed', { instance: parts.uuid, port: number, error });
      void this.close();
    });
  }

  /** Stays open for `ms` at least; after that, as long as somebody is there. */
  keep(ms: number): void {
    this.#endsAt = Math.max(this.#endsAt, Date.now() + ms);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#closeWhenUnused(), this.#endsAt - Date.now()).unref();
  }

  /** One connection may come now. */
  admit(): void {
    this.#admissions = [...this.#currentAdmissions(), Date.now() + ADMISSION_MS];
    this.keep(ADMISSION_MS);
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#server.close();
    this.#parts.onClose();
    this.#session?.socket.destroy();
    await this.#session?.done;
  }

  #take(socket: Socket): void {
    // what is wrong with a connection shows as its end
    socket.on('error', () => socket.destroy());
    const [, ...others] = this.#currentAdmissions();
    const isAdmitted = this.#admissions.length > 0 && !this.#isClosed;
    this.#admissions = others;
    if (!isAdmitted) {
      const { remoteAddress: from } = socket;
      this.#parts.log.warn('connection to a console that nobody announced', { instance: this.#parts.uuid, from });
      socket.destroy();
      return;
    }
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    const former = this.#session;
    const session: Session = { socket, done: this.#serve(socket, former) };
    this.#session = session;
    void session.done.then(() => {
      if (this.#session === session) this.#session = undefined;
      this.#closeWhenUnused();
    });
  }

  /** There is one terminal: who comes last has it. */
  async #serve(socket: Socket, former: Session | undefined): Promise<void> {
    const { uuid, virt, log } = this.#parts;
    const left = new AbortController();
    socket.once('close', () => left.abort());
    if (former) endSoon(former.socket, TAKEN_OVER);
    await former?.done;
    if (socket.destroyed) return;
    log.info('console connected', { instance: uuid });
    try {
      await virt.openConsole(uuid, socket, left.signal);
      endSoon(socket);
    } catch (error) {
      if (left.signal.aborted) return;
      const isExpected = ['conflict', 'not_found'].includes(kindOf(error));
      if (!isExpected) log.warn('console of an instance failed', { instance: uuid, error });
      endSoon(socket, isExpected ? UNAVAILABLE : FAILED);
    } finally {
      log.info('console disconnected', { instance: uuid });
    }
  }

  #currentAdmissions(): readonly number[] {
    const now = Date.now();
    this.#admissions = this.#admissions.filter((until) => until > now);
    return this.#admissions;
  }

  #closeWhenUnused(): void {
    if (!this.#session && Date.now() >= this.#endsAt) void this.close();
  }
}

/** A client that does not read its last line does not keep the console. */
function endSoon(socket: Socket, text = ''): void {
  if (text !== '' && socket.writable) socket.write(text);
  const timers = [
    setTimeout(() => socket.end(), text === '' ? 0 : BEFORE_END_MS).unref(),
    setTimeout(() => socket.destroy(), LAST_LINE_MS).unref(),
  ];
  socket.once('close', () => timers.forEach(clearTimeout));
}
