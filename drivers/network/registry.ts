// The one list of drivers of managed networks.
import { bridge } from './bridge/bridge.ts';
import type { NetworkModule } from './driver.ts';
import { macvlan } from './macvlan/macvlan.ts';

export const networkDrivers = { bridge, macvlan } as const satisfies Record<string, NetworkModule>;
