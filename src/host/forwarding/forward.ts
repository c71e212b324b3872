// One proxy device: what listens, and the connections that came through it.
import { accept, close, localAddress, OPTION, pendingError, setOption } from './calls.ts';
import { proxyHeader } from './addresses.ts';
import { DatagramListener } from './datagrams.ts';
import { EVENT, type Loop } from './loop.ts';
import type { ForwardSpec } from './messages.ts';
import { type End, Relay } from './relay.ts';
import { connectFrom, ContainerSide, type HostSide, type Listening, listenOn, type Side } from './sides.ts';

const ACCEPTS_AT_ONCE = 64;
const IDLE_MS = 180_000;
/** Without descriptors left: until some are free again. */
const NO_DESCRIPTORS = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM']);

export interface ForwardParts {
  readonly loop: Loop;
  readonly host: HostSide;
  /** The container is gone, and the forward has closed itself. */
  readonly gone: () => void;
  /** A connection that did not come about. */
  readonly failed: (error: unknown) => void;
}

export class Forward {
  readonly spec: ForwardSpec;
  readonly #parts: ForwardParts;
  readonly #container: ContainerSide;
  readonly #listening: readonly Listening[];
  readonly #datagrams: DatagramListener[] = [];
  readonly #relays = new Set<Relay>();
  /** Accepted, and not connected yet: their sockets. */
  readonly #halves = new Map<number, number>();
  readonly #paused = new Set<number>();

  /** Throws when the container is gone, or when the address is taken. */
  constructor(spec: ForwardSpec, parts: ForwardParts) {
    this.spec = spec;
    this.#parts = parts;
    this.#container = new ContainerSide(parts.host, spec);
    try {
      this.#listening = listenOn(this.#side(spec.listensInside), spec);
    } catch (error) {
      this.#container.close();
      throw error;
    }
    for (const one of this.#listening) this.#serve(one);
    parts.loop.watch(this.#container.processFd, EVENT.readable, () => {
      this.close();
      parts.gone();
    });
  }

  /** Whether tick() has something to do. */
  get needsTicks(): boolean {
    const idles = this.spec.connect.kind === 'udp' && this.#relays.size > 0;
    return idles || this.#paused.size > 0 || this.#datagrams.some(({ hasSessions }) => hasSessions);
  }

  tick(now: number): void {
    for (const fd of this.#paused) this.#parts.loop.expect(fd, EVENT.readable);
    this.#paused.clear();
    for (const one of this.#datagrams) one.sweep(now);
    for (const relay of this.#relays) if (relay.isIdleSince(now - IDLE_MS)) relay.close();
  }

  close(): void {
    const { loop } = this.#parts;
    for (const one of this.#datagrams) one.close();
    for (const one of this.#listening) {
      const { fd, kind } = one;
      if (kind !== 'udp') {
        loop.forget(fd);
        close(fd);
      }
      one.remove();
    }
    for (const [right, left] of this.#halves) {
      loop.forget(right);
      close(left);
      close(right);
    }
    this.#halves.clear();
    for (const relay of this.#relays) relay.close();
    loop.forget(this.#container.processFd);
    this.#container.close();
  }

  #side(inside: boolean): Side {
    return inside ? this.#container : this.#parts.host;
  }

  #serve({ fd, kind, index }: Listening): void {
    const { loop, failed } = this.#parts;
    if (kind === 'udp')
      this.#datagrams.push(new DatagramListener(fd, { loop, failed, connect: () => this.#connect(index) }));
    else loop.watch(fd, EVENT.readable, () => this.#accept(fd, kind, index));
  }

  #connect(index: number): End {
    const { spec } = this;
    return { fd: connectFrom(this.#side(!spec.listensInside), spec, index), kind: spec.connect.kind };
  }

  #accept(listener: number, kind: End['kind'], index: number): void {
    for (let count = 0; count < ACCEPTS_AT_ONCE; count++) {
      const accepted = this.#acceptOne(listener);
      if (!accepted) return;
      const { fd, address } = accepted;
      try {
        if (kind === 'tcp') setOption(fd, OPTION.noDelay, 1);
        const first = this.spec.proxyHeader ? proxyHeader(address, localAddress(fd)) : undefined;
        this.#relayWhenConnected({ fd, kind }, this.#connect(index), first);
      } catch (error) {
        close(fd);
        this.#parts.failed(error);
      }
    }
  }

  #acceptOne(listener: number) {
    try {
      return accept(listener);
    } catch (error) {
      if (NO_DESCRIPTORS.has((error as { errno?: string }).errno ?? '')) {
        this.#paused.add(listener);
        this.#parts.loop.expect(listener, 0);
      }
      this.#parts.failed(error);
      return undefined;
    }
  }

  #relayWhenConnected(left: End, right: End, first: Buffer | undefined): void {
    const { loop, failed } = this.#parts;
    this.#halves.set(right.fd, left.fd);
    loop.watch(right.fd, EVENT.writable, () => {
      loop.forget(right.fd);
      this.#halves.delete(right.fd);
      const error = pendingError(right.fd);
      if (error === undefined) return this.#relay(left, right, first);
      close(left.fd);
      close(right.fd);
      failed(new Error(error));
    });
  }

  #relay(left: End, right: End, first: Buffer | undefined): void {
    const relay: Relay = new Relay([left, right], {
      loop: this.#parts.loop,
      first,
      ended: () => this.#relays.delete(relay),
    });
    this.#relays.add(relay);
  }
}
