// What a running instance uses and which addresses it has. Nothing is forked: cgroup files and netlink answer.
import type { RuntimeDriver, RuntimeUsage } from '#drivers/runtime/driver.ts';
import { readNamespaceInterfaces, type NetworkInterface } from '#src/host/netlink.ts';
import { messageOf } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { rootDisk } from './disks.ts';
import type { Expanded } from './expansion.ts';
import { hostName, instancePaths } from './instance-paths.ts';
import type { InstanceRoots } from './instance-roots.ts';
import type { InstanceStatus } from './supervisor.ts';

export interface InstanceInterface extends NetworkInterface {
  /** The other end of the pair on the host. */
  readonly hostName: string;
}

export interface InstanceState {
  readonly status: InstanceStatus | 'Error';
  readonly pid: number;
  readonly processes: number;
  readonly cpuNs: number;
  readonly memory: {
    readonly usage: number;
    readonly usagePeak: number;
    readonly swapUsage: number;
    readonly swapUsagePeak: number;
  };
  /** Device → bytes, for those whose pool can tell. */
  readonly disk: Readonly<Record<string, number>>;
  /** null: does not run. */
  readonly network: readonly InstanceInterface[] | null;
}

const NO_MEMORY = { usage: 0, usagePeak: 0, swapUsage: 0, swapUsagePeak: 0 };

export interface StateParts {
  readonly context: EngineContext;
  readonly runtime: RuntimeDriver;
  readonly readInterfaces?: (pid: number) => readonly NetworkInterface[];
  /** Default: asks the driver for each. */
  readonly usage?: ReadUsage;
  readonly roots: Pick<InstanceRoots, 'usedBytes'>;
}

type ReadUsage = (pool: string, volume: string, signal: AbortSignal) => Promise<number | undefined>;

export interface StateQuery {
  readonly record: InstanceRecord;
  readonly expanded: Expanded;
  readonly status: InstanceStatus;
  /** Of init, if it is known. */
  readonly pid?: number | undefined;
}

export async function instanceState(parts: StateParts, query: StateQuery, signal: AbortSignal): Promise<InstanceState> {
  const [disk, running] = await Promise.all([diskUsage(parts, query, signal), runningState(parts, query, signal)]);
  return { ...STOPPED, disk, ...running };
}

const STOPPED = { status: 'Stopped', pid: 0, processes: 0, cpuNs: 0, memory: NO_MEMORY, network: null } as const;

type RunningState = Omit<InstanceState, 'disk'>;

async function runningState(parts: StateParts, query: StateQuery, signal: AbortSignal): Promise<RunningState> {
  const { status, record } = query;
  if (status === 'Stopped') return STOPPED;
  const { container } = instancePaths(parts.context.paths, record);
  try {
    const pid = query.pid ?? (await parts.runtime.initPid(container, signal));
    if (pid === undefined) return STOPPED;
    const usage = await parts.runtime.usage(pid, signal);
    return {
      status,
      pid,
      processes: usage.processes ?? 0,
      cpuNs: usage.cpuNs ?? 0,
      memory: memoryOf(usage),
      network: interfaces(parts, record, pid),
    };
  } catch (error) {
    signal.throwIfAborted();
    parts.context.log.warn('the state of a container cannot be read', { instance: record.name, error });
    return { ...STOPPED, status: 'Error' };
  }
}

function memoryOf(usage: RuntimeUsage): InstanceState['memory'] {
  const { memoryBytes = 0, memoryPeakBytes = 0, swapBytes = 0, swapPeakBytes = 0 } = usage;
  return { usage: memoryBytes, usagePeak: memoryPeakBytes, swapUsage: swapBytes, swapUsagePeak: swapPeakBytes };
}

/** States of many: each pool that can is asked once for all. */
export async function instanceStates(
  parts: StateParts,
  queries: readonly StateQuery[],
  signal: AbortSignal,
): Promise<readonly InstanceState[]> {
  const asked = new Map<string, Promise<ReadonlyMap<string, number>>>();
  const usage: ReadUsage = (pool, volume, signal) => {
    const driver = parts.context.pools.driver(pool);
    if (!driver.instanceUsages) return driver.instanceUsage(volume, signal);
    const all = asked.get(pool) ?? driver.instanceUsages(signal);
    asked.set(pool, all);
    return all.then((usages) => usages.get(volume));
  };
  return Promise.all(queries.map((query) => instanceState({ ...parts, usage }, query, signal)));
}

function oneDisk(device: string, bytes: number | undefined) {
  return bytes === undefined ? {} : { [device]: bytes };
}

async function diskUsage({ context, usage, roots }: StateParts, { record, expanded }: StateQuery, signal: AbortSignal) {
  try {
    const { device, block } = rootDisk(expanded.devices);
    const volume = hostName(record);
    if (block !== undefined) return oneDisk(device, await roots.usedBytes(record));
    const bytes = usage
      ? await usage(record.pool, volume, signal)
      : await context.pools.driver(record.pool).instanceUsage(volume, signal);
    return oneDisk(device, bytes);
  } catch (error) {
    signal.throwIfAborted();
    context.log.debug('the disk usage of an instance cannot be read', {
      instance: record.name,
      error: messageOf(error),
    });
    return {};
  }
}

/** A container that ends meanwhile has none. */
function interfaces({ readInterfaces, context }: StateParts, record: InstanceRecord, pid: number) {
  const hosts = new Map<string, string>();
  for (const [key, value] of Object.entries(record.config)) {
    const device = /^volatile\.(.+)\.host_name$/.exec(key)?.[1];
    const hwaddr = record.config[`volatile.${device}.hwaddr`] ?? record.devices[device ?? '']?.['hwaddr'];
    if (device !== undefined && hwaddr !== undefined) hosts.set(hwaddr.toLowerCase(), value);
  }
  try {
    const found = (readInterfaces ?? readNamespaceInterfaces)(pid);
    return found.map((one) => ({ ...one, hostName: hosts.get(one.hwaddr) ?? '' }));
  } catch (error) {
    context.log.debug('the interfaces of a container cannot be read', {
      instance: record.name,
      error: messageOf(error),
    });
    return [];
  }
}
