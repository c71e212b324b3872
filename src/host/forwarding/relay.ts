// Two connected sockets, each of which gets what the other receives.
import { close, finishSending, receive, receiveWithFds, send, sendWithFds } from './calls.ts';
import { EVENT, type Loop } from './loop.ts';

export interface End {
  readonly fd: number;
  readonly kind: 'tcp' | 'udp' | 'unix';
}

/** One way. */
interface Way {
  readonly from: End;
  readonly to: End;
  /** Received and not sent yet; nothing more is received meanwhile. */
  pending: Buffer | undefined;
  fds: readonly number[];
  ended: boolean;
  /** The socket that it comes from hung up: there may be something to receive, and nothing can be sent. */
  gone: boolean;
}

const CHUNK_BYTES = 128 * 1024;
const MAX_DATAGRAM = 65_507;
/** So that one connection does not keep the others waiting. */
const CHUNKS_AT_ONCE = 4;
/** All ways share it: what cannot be sent at once is copied. */
const buffer = Buffer.allocUnsafeSlow(CHUNK_BYTES);

export interface RelayParts {
  readonly loop: Loop;
  /** Sent to the second end first. */
  readonly first?: Buffer | undefined;
  readonly ended: () => void;
}

export class Relay {
  readonly #loop: Loop;
  readonly #ends: readonly [End, End];
  readonly #there: Way;
  readonly #back: Way;
  readonly #passesFds: boolean;
  readonly #ended: () => void;
  #closed = false;
  #usedAt = Date.now();

  /** Both are the relay's to close. */
  constructor([left, right]: readonly [End, End], { loop, first, ended }: RelayParts) {
    this.#loop = loop;
    this.#ends = [left, right];
    this.#there = { from: left, to: right, pending: first, fds: [], ended: false, gone: false };
    this.#back = { from: right, to: left, pending: undefined, fds: [], ended: false, gone: false };
    this.#passesFds = left.kind === 'unix' && right.kind === 'unix';
    this.#ended = ended;
    this.#arm(this.#there, this.#back);
    this.#arm(this.#back, this.#there);
  }

  /** Nothing says that a peer which sends datagrams is gone. */
  isIdleSince(time: number): boolean {
    return this.#usedAt < time && this.#ends.some(({ kind }) => kind === 'udp');
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const { fd } of this.#ends) {
      this.#loop.forget(fd);
      close(fd);
    }
    for (const fd of [...this.#there.fds, ...this.#back.fds]) close(fd);
    this.#ended();
  }

  /** Events of the socket that `out` comes from and `into` goes to. */
  #handle(out: Way, into: Way, events: number): void {
    this.#usedAt = Date.now();
    if (events & (EVENT.broken | EVENT.hungUp)) out.gone = true;
    try {
      this.#move(out, into, events);
    } catch {
      return this.close(); // reset by a peer: the other one gets to know by the end of its connection
    }
    if (out.ended && into.ended && !out.pending) return this.close();
    this.#arm(out, into);
    this.#arm(into, out);
  }

  #move(out: Way, into: Way, events: number): void {
    if (out.gone) drop(into);
    if (out.gone || events & EVENT.readable) this.#pump(out);
    if (!out.gone && events & EVENT.writable) this.#pump(into);
  }

  /** Waits for what concerns the socket that `out` comes from. */
  #arm(out: Way, into: Way): void {
    const { fd } = out.from;
    const reads = !out.ended && !out.pending;
    const events = (reads ? EVENT.readable : 0) | (into.pending ? EVENT.writable : 0);
    // That it hung up would be reported for ever.
    if (out.gone && !reads) this.#loop.forget(fd);
    else if (this.#loop.isWatched(fd)) this.#loop.expect(fd, events);
    else this.#loop.watch(fd, events, (happened) => this.#handle(out, into, happened));
  }

  #pump(way: Way): void {
    for (let chunk = 0; chunk < CHUNKS_AT_ONCE && !way.ended; chunk++) {
      if (way.pending && !this.#flush(way)) return;
      if (!this.#take(way)) return;
    }
  }

  /** False when there is nothing now, or nothing more. */
  #take(way: Way): boolean {
    const { from, to } = way;
    const into = to.kind === 'udp' ? buffer.subarray(0, MAX_DATAGRAM) : buffer;
    const received = this.#passesFds ? receiveWithFds(from.fd, into) : plain(receive(from.fd, into));
    if (!received) return false;
    if (received.length > 0) {
      way.pending = buffer.subarray(0, received.length);
      way.fds = received.fds;
      if (!this.#flush(way)) way.pending = Buffer.from(way.pending);
      return way.pending === undefined;
    }
    if (from.kind === 'udp') return true;
    way.ended = true;
    if (to.kind !== 'udp') finishSending(to.fd);
    return false;
  }

  /** True when nothing is pending any more. */
  #flush(way: Way): boolean {
    while (way.pending) {
      const sent = way.fds.length > 0 ? sendWithFds(way.to.fd, way.pending, way.fds) : send(way.to.fd, way.pending);
      if (sent === undefined) return false;
      for (const fd of way.fds) close(fd);
      way.fds = [];
      way.pending = sent < way.pending.length ? way.pending.subarray(sent) : undefined;
    }
    return true;
  }
}

function plain(length: number | undefined) {
  return length === undefined ? undefined : { length, fds: [] };
}

/** Nobody is there to receive it. */
function drop(way: Way): void {
  for (const fd of way.fds) close(fd);
  way.fds = [];
  way.pending = undefined;
  way.ended = true;
}
