// What the user asked for: networks, ports, `auto` or `none` (section 5.2, argument requested_networks).
import type { NovaObject } from '#src/nova/objects/object.ts';
import { objectsOf } from '#src/nova/objects/wire.ts';

export interface NetworkWish {
  readonly networkId: string | null;
  readonly portId: string | null;
  readonly address: string | null;
  readonly tag: string | null;
}

export interface NetworkWishes {
  /** `auto`: the project's automatic topology, made when it has no network. */
  readonly isAuto: boolean;
  /** `none`: no networking at all. */
  readonly isNone: boolean;
  readonly list: readonly NetworkWish[];
}

export const NO_WISHES: NetworkWishes = { isAuto: false, isNone: false, list: [] };

export function readWishes(requested: NovaObject<'NetworkRequestList'> | null): NetworkWishes {
  if (requested === null) return NO_WISHES;
  const list = objectsOf(requested).map((request) => ({
    networkId: request.find('network_id') ?? null,
    portId: request.find('port_id') ?? null,
    address: request.find('address') ?? null,
    tag: request.find('tag') ?? null,
  }));
  const [only] = list;
  const special = list.length === 1 && only?.portId === null ? only.networkId : null;
  return { isAuto: special === 'auto', isNone: special === 'none', list };
}

/** Ports that the user made: they outlive the instance. */
export function portsOfUser(wishes: NetworkWishes): readonly string[] {
  return wishes.list.flatMap(({ portId }) => (portId === null ? [] : [portId]));
}
