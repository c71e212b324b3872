// The one list of container runtimes.
import type { RuntimeModule } from './driver.ts';
import { lxc } from './lxc/lxc.ts';

export const runtimeDrivers = { lxc } as const satisfies Record<string, RuntimeModule>;
