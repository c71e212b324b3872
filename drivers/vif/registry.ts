// The one list of VIF drivers.
import { bridge } from './bridge/bridge.ts';
import type { VifModule } from './driver.ts';
import { ovs } from './ovs/ovs.ts';
import { simulated } from './simulated/simulated.ts';
import { tap } from './tap/tap.ts';
import { unbound } from './unbound/unbound.ts';

export const vifDrivers = { bridge, ovs, tap, unbound } as const satisfies Record<string, VifModule>;

/** Of hosts that are simulated: ports that are bound to nothing are refused there as well. */
export const simulatedVifDrivers = { simulated, unbound } as const satisfies Record<string, VifModule>;
