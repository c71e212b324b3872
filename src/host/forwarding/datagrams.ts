// What arrives at a UDP socket, sent on: every sender has a connection of its own, and gets what comes back on it.
import { close, receive, receiveFrom, send, sendTo } from './calls.ts';
import { EVENT, type Loop } from './loop.ts';
import type { End } from './relay.ts';

interface Session {
  readonly sender: Buffer;
  readonly end: End;
  usedAt: number;
  /** Until a stream is connected, and while it takes nothing. */
  waiting: Buffer[];
}

/** A sender that is not heard of, and gets no answer, is forgotten. */
const IDLE_MS = 180_000;
const MAX_SESSIONS = 1024;
const MAX_WAITING = 64;
const DATAGRAMS_AT_ONCE = 64;
const buffer = Buffer.allocUnsafeSlow(65_536);

export interface DatagramParts {
  readonly loop: Loop;
  /** A connection for a new sender; it may still be under way. Throws when there can be none. */
  readonly connect: () => End;
  readonly failed: (error: unknown) => void;
}

export class DatagramListener {
  readonly #fd: number;
  readonly #parts: DatagramParts;
  readonly #sessions = new Map<string, Session>();

  /** The socket is the listener's to close. */
  constructor(fd: number, parts: DatagramParts) {
    this.#fd = fd;
    this.#parts = parts;
    parts.loop.watch(fd, EVENT.readable, () => this.#receive());
  }

  get hasSessions(): boolean {
    return this.#sessions.size > 0;
  }

  sweep(now: number): void {
    for (const [key, { usedAt }] of this.#sessions) if (usedAt < now - IDLE_MS) this.#end(key);
  }

  close(): void {
    for (const key of this.#sessions.keys()) this.#end(key);
    this.#parts.loop.forget(this.#fd);
    close(this.#fd);
  }

  #receive(): void {
    for (let count = 0; count < DATAGRAMS_AT_ONCE; count++) {
      const received = receiveFrom(this.#fd, buffer);
      if (!received) return;
      const key = received.from.toString('latin1');
      try {
        const session = this.#sessions.get(key) ?? this.#begin(key, received.from);
        this.#pass(session, buffer.subarray(0, received.length));
      } catch (error) {
        this.#end(key);
        this.#parts.failed(error);
      }
    }
  }

  #begin(key: string, sender: Buffer): Session {
    if (this.#sessions.size >= MAX_SESSIONS) this.#end(this.#leastUsed());
    const session: Session = { sender, end: this.#parts.connect(), usedAt: Date.now(), waiting: [] };
    this.#sessions.set(key, session);
    const { fd, kind } = session.end;
    const events = kind === 'udp' ? EVENT.readable : EVENT.readable | EVENT.writable;
    this.#parts.loop.watch(fd, events, (happened) => this.#handle(key, session, happened));
    return session;
  }

  #leastUsed(): string {
    let [found = '', oldest = Infinity]: [string?, number?] = [];
    for (const [key, { usedAt }] of this.#sessions) if (usedAt < oldest) [found, oldest] = [key, usedAt];
    return found;
  }

  /** What is too much is lost, as datagrams may be. */
  #pass(session: Session, data: Buffer): void {
    session.usedAt = Date.now();
    const { fd, kind } = session.end;
    if (kind === 'udp') {
      send(fd, data);
      return;
    }
    if (session.waiting.length >= MAX_WAITING) return;
    session.waiting.push(Buffer.from(data));
    this.#parts.loop.expect(fd, EVENT.readable | EVENT.writable);
  }

  #handle(key: string, session: Session, events: number): void {
    try {
      if (events & EVENT.writable) this.#flush(session);
      const isOpen = events & ~EVENT.writable ? this.#answer(session) : true;
      if (!isOpen) this.#end(key);
    } catch (error) {
      this.#end(key);
      this.#parts.failed(error);
    }
  }

  #flush(session: Session): void {
    const { fd, kind } = session.end;
    for (;;) {
      const [data] = session.waiting;
      if (!data) break;
      const sent = send(fd, data);
      if (sent === undefined) return;
      if (sent < data.length) session.waiting[0] = data.subarray(sent);
      else session.waiting.shift();
    }
    if (kind !== 'udp') this.#parts.loop.expect(fd, EVENT.readable);
  }

  /** False when the other end has ended the connection. */
  #answer(session: Session): boolean {
    const { fd, kind } = session.end;
    for (let count = 0; count < DATAGRAMS_AT_ONCE; count++) {
      const length = receive(fd, buffer.subarray(0, kind === 'udp' ? buffer.length : 65_507));
      if (length === undefined) return true;
      if (length === 0 && kind !== 'udp') return false;
      session.usedAt = Date.now();
      sendTo(this.#fd, buffer.subarray(0, length), session.sender);
    }
    return true;
  }

  #end(key: string): void {
    const session = this.#sessions.get(key);
    if (!session) return;
    this.#sessions.delete(key);
    this.#parts.loop.forget(session.end.fd);
    close(session.end.fd);
  }
}
