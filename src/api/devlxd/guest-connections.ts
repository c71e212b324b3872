// How many connections each instance has to devlxd: one of them must not take those of all others.
import type { Duplex } from 'node:stream';

/** Agents inside have one or two. */
export const MAX_CONNECTIONS_PER_GUEST = 128;

export class GuestConnections {
  readonly #counts = new Map<number | undefined, number>();

  /** False: it has enough of them. Those of processes that belong to no instance are counted together. */
  admit(guest: number | undefined, socket: Duplex): boolean {
    const count = this.#counts.get(guest) ?? 0;
    if (count >= MAX_CONNECTIONS_PER_GUEST) return false;
    this.#counts.set(guest, count + 1);
    socket.once('close', () => this.#release(guest));
    return true;
  }

  #release(guest: number | undefined): void {
    const count = (this.#counts.get(guest) ?? 0) - 1;
    if (count > 0) this.#counts.set(guest, count);
    else this.#counts.delete(guest);
  }
}
