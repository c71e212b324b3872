// The one list of VIF drivers.
import { bridge } from './bridge/bridge.ts';
import type { VifModule } from './driver.ts';
import { simulated } from './simulated/simulated.ts';
import { unbound } from './unbound/unbound.ts';

export const vifDrivers = { bridge, unbound } as const satisfies Record<string, VifModule>;

/** Of hosts that are simulated: ports that are bound to nothing are refused there as well. */
export const simulatedVifDrivers = { simulated, unbound } as const satisfies Record<string, VifModule>;
