// Who may have ports made: Neutron's policy says so, once for some minutes.
import type { RequestContext } from '#src/nova/context.ts';

/** Milliseconds for which Neutron's word holds; it may be that an operator changes the policy meanwhile. */
const BELIEVED_MS = 600_000;

/** What Neutron's policy judges a new port by. */
export interface PortWish {
  readonly context: RequestContext;
  /** That of the instance. */
  readonly projectId: string | null;
  readonly networkId: string;
  readonly hasSecurityGroups: boolean;
}

/**
 * A user's port is made in the user's name, which is how Neutron's policy is asked, and bound in the service user's: two slow
 * writes. Whoever has just had such a port made may have the next one made and bound in one.
 */
export class PortRights {
  readonly #proven = new Set<string>();

  /** Whether the same user's port of this kind was made in the user's name a moment ago. */
  isProven(wish: PortWish): boolean {
    return this.#proven.has(keyOf(wish));
  }

  /** Neutron has made one. Its word holds from now on, however often it is asked for. */
  prove(wish: PortWish): void {
    const key = keyOf(wish);
    if (this.#proven.has(key)) return;
    this.#proven.add(key);
    setTimeout(() => this.#proven.delete(key), BELIEVED_MS).unref();
  }
}

function keyOf({ context, projectId, networkId, hasSecurityGroups }: PortWish): string {
  const { userId, projectId: own, roles } = context;
  return JSON.stringify([userId, own, roles.toSorted(), projectId, networkId, hasSecurityGroups]);
}
