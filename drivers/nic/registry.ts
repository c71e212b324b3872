// The one list of nic drivers.
import { bridged } from './bridged/bridged.ts';
import type { NicModule } from './driver.ts';
import { ipvlan } from './ipvlan/ipvlan.ts';
import { macvlan } from './macvlan/macvlan.ts';
import { p2p } from './p2p/p2p.ts';
import { physical } from './physical/physical.ts';
import { routed } from './routed/routed.ts';

export const nicDrivers = { bridged, ipvlan, macvlan, p2p, physical, routed } as const satisfies Record<
  string,
  NicModule
>;
