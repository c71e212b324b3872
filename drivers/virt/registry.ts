// The one list of virt drivers.
import type { Host } from '#src/host/host.ts';
import type { Log } from '#src/lib/log.ts';
import type { VirtDriver } from './driver.ts';
import { type FakeOptions, FakeVirtDriver } from './fake/fake.ts';
import { LxdDriver } from './lxd/driver.ts';
import type { LxdDriverOptions } from './lxd/options.ts';

/** All that a virt driver is given. */
export interface VirtContext {
  /** hypervisor_hostname; the compute's own host name. */
  readonly nodeName: string;
  readonly log: Log;
  readonly host: Host;
  /** state_path. */
  readonly stateFolder: string;
  /** Section [fake]. */
  readonly fake: Omit<FakeOptions, 'nodeName'>;
  /** Section [lxd]. */
  readonly lxd: Omit<LxdDriverOptions, 'stateFolder'>;
}

export const virtDrivers = {
  fake: ({ nodeName, fake }) => new FakeVirtDriver({ nodeName, ...fake }),
  lxd: ({ nodeName, log, host, stateFolder, lxd }) =>
    new LxdDriver({ log, host, options: { nodeName, stateFolder, ...lxd } }),
} as const satisfies Record<string, (context: VirtContext) => VirtDriver>;

export type VirtDriverName = keyof typeof virtDrivers;
