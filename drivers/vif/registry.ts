// The one list of VIF drivers.
import { bridge } from './bridge/bridge.ts';
import type { VifModule } from './driver.ts';
import { unbound } from './unbound/unbound.ts';

export const vifDrivers = { bridge, unbound } as const satisfies Record<string, VifModule>;
