// Control groups as liblxc lays them out, on v1, hybrid and unified hosts: where they are, limits as settings, figures.
import type { Host } from '#src/host/host.ts';
import type { RuntimeLimits, RuntimeThrottle, RuntimeUsage } from '../driver.ts';

export interface CgroupLayout {
  /** No v1 controllers: the whole tree is cgroup v2. */
  readonly unified: boolean;
  /** v1 controller → its mount point; on a unified host each enabled controller → the mount point of the tree. */
  readonly controllers: ReadonlyMap<string, string>;
  /** Every hierarchy that liblxc makes directories in. */
  readonly mountPoints: readonly string[];
  /** Files that weigh the disk transfers of a group against those of others; most kernels have none. */
  readonly diskWeights?: readonly string[];
}

const V1_CONTROLLERS = new Set([
  'cpu',
  'cpuacct',
  'cpuset',
  'memory',
  'devices',
  'freezer',
  'blkio',
  'pids',
  'net_cls',
  'net_prio',
  'perf_event',
  'hugetlb',
  'rdma',
  'misc',
]);

/** Reads the host's cgroup mounts; they do not change while the host is up. */
export async function readCgroupLayout(host: Host): Promise<CgroupLayout> {
  const mounts = parseMounts(await host.readFile('/proc/self/mountinfo'));
  const controllers = new Map<string, string>();
  for (const { path, options } of mounts.filter((mount) => mount.type === 'cgroup')) {
    for (const option of options) if (V1_CONTROLLERS.has(option)) controllers.set(option, path);
  }
  const v2 = mounts.find((mount) => mount.type === 'cgroup2');
  const unified = controllers.size === 0 && v2 !== undefined;
  if (unified) {
    const enabled = await host.readFile(`${v2.path}/cgroup.controllers`);
    for (const name of enabled.trim().split(/\s+/)) controllers.set(name, v2.path);
  }
  return { unified, controllers, mountPoints: [...new Set(mounts.map((mount) => mount.path))] };
}

interface CgroupMount {
  readonly path: string;
  readonly type: string;
  readonly options: readonly string[];
}

function parseMounts(mountinfo: string): CgroupMount[] {
  return mountinfo.split('\n').flatMap((line) => {
    const [left, right] = line.split(' - ');
    const [type, , superOptions] = right?.split(' ') ?? [];
    const path = left?.split(' ')[4];
    if (path === undefined || (type !== 'cgroup' && type !== 'cgroup2')) return [];
    return [{ path, type, options: superOptions?.split(',') ?? [] }];
  });
}

/** A limit as liblxc writes it: lxc.cgroup.FILE or, unified, lxc.cgroup2.FILE. */
export interface CgroupSetting {
  readonly controller: string;
  readonly file: string;
  readonly value: string;
}

/** lxd-engine-contract section 4.2. Order counts: memory before memory plus swap, quota before period. */
export function limitSettings(limits: RuntimeLimits, layout: CgroupLayout): readonly CgroupSetting[] {
  const settings = layout.unified ? unifiedSettings(limits, layout) : v1Settings(limits, layout);
  return settings.map(([file, value]) => ({ controller: controllerOf(file), file, value: String(value) }));
}

type Setting = readonly [file: string, value: string | number];

function controllerOf(file: string): string {
  const prefix = file.split('.')[0] ?? file;
  return prefix === 'io' ? 'io' : prefix;
}

function v1Settings(limits: RuntimeLimits, layout: CgroupLayout): Setting[] {
  const { cpuQuota } = limits;
  return [
    ...v1Memory(limits, layout),
    ...optional('cpu.shares', limits.cpuWeight, (weight) => Math.round((1024 * weight) / 100)),
    ...(cpuQuota
      ? ([
          ['cpu.cfs_period_us', cpuQuota.periodUs],
          ['cpu.cfs_quota_us', cpuQuota.quotaUs],
        ] as const)
      : []),
    ...optional('cpuset.cpus', limits.cpuSet, (set) => set),
    ...optional('pids.max', limits.processes, (count) => count),
    ...diskWeights(limits, layout),
    ...Object.entries(limits.hugepages ?? {}).map(
      ([size, bytes]): Setting => [`hugetlb.${size}.limit_in_bytes`, bytes],
    ),
    ...Object.entries(limits.throttles ?? {}).flatMap(([device, throttle]) => v1Throttle(device, throttle)),
    ...Object.entries(limits.networkPriorities ?? {}).map(
      ([name, priority]): Setting => ['net_prio.ifpriomap', `${name} ${priority}`],
    ),
  ];
}

function v1Memory({ memory, swap, swapPriority }: RuntimeLimits, layout: CgroupLayout): Setting[] {
  const swappiness: Setting[] =
    swap === false
      ? [['memory.swappiness', 0]]
      : optional('memory.swappiness', swapPriority, (priority) => 70 - priority);
  if (!memory) return swappiness;
  const { bytes, enforce } = memory;
  if (enforce === 'soft') return [...swappiness, ['memory.soft_limit_in_bytes', bytes]];
  return [
    ...swappiness,
    ['memory.limit_in_bytes', bytes],
    ...(swap !== false && hasMemsw(layout) ? ([['memory.memsw.limit_in_bytes', bytes + (swap ?? 0)]] as const) : []),
    ['memory.soft_limit_in_bytes', Math.floor(bytes * 0.9)],
  ];
}

function hasMemsw(layout: CgroupLayout): boolean {
  return layout.controllers.has('memory.memsw');
}

function unifiedSettings(limits: RuntimeLimits, layout: CgroupLayout): Setting[] {
  const { cpuQuota } = limits;
  return [
    ...unifiedMemory(limits),
    ...optional('cpu.weight', limits.cpuWeight, (weight) => Math.max(1, Math.round(weight))),
    ...(cpuQuota ? ([['cpu.max', `${cpuQuota.quotaUs} ${cpuQuota.periodUs}`]] as const) : []),
    ...optional('cpuset.cpus', limits.cpuSet, (set) => set),
    ...optional('pids.max', limits.processes, (count) => count),
    ...diskWeights(limits, layout),
    ...Object.entries(limits.hugepages ?? {}).map(([size, bytes]): Setting => [`hugetlb.${size}.max`, bytes]),
    ...Object.entries(limits.throttles ?? {}).map(([device, throttle]) => unifiedThrottle(device, throttle)),
  ];
}

/**
 * A soft limit is memory.high: LXD 5.0 writes memory.low, which protects instead of limiting. A hard one is of memory and swap
 * together, as in version 1: without swap, unless so much of it is granted.
 */
function unifiedMemory({ memory, swap }: RuntimeLimits): Setting[] {
  const isLimited = swap !== undefined || memory?.enforce === 'hard';
  const swapped: Setting[] = isLimited ? [['memory.swap.max', swap === false ? 0 : (swap ?? 0)]] : [];
  if (!memory) return swapped;
  return [[memory.enforce === 'soft' ? 'memory.high' : 'memory.max', memory.bytes], ...swapped];
}

function optional<T>(file: string, value: T | undefined, convert: (value: T) => string | number): Setting[] {
  return value === undefined ? [] : [[file, convert(value)]];
}

/** Zero lifts a limit: all four are written, so that none of an earlier setting stays. */
function v1Throttle(device: string, throttle: RuntimeThrottle): Setting[] {
  const { readBytes = 0, writeBytes = 0, readOperations = 0, writeOperations = 0 } = throttle;
  return [
    ['blkio.throttle.read_bps_device', `${device} ${readBytes}`],
    ['blkio.throttle.write_bps_device', `${device} ${writeBytes}`],
    ['blkio.throttle.read_iops_device', `${device} ${readOperations}`],
    ['blkio.throttle.write_iops_device', `${device} ${writeOperations}`],
  ];
}

function unifiedThrottle(device: string, throttle: RuntimeThrottle): Setting {
  const value = (limit: number | undefined): string => (limit === undefined ? 'max' : String(limit));
  const { readBytes, writeBytes, readOperations, writeOperations } = throttle;
  const limits = `rbps=${value(readBytes)} wbps=${value(writeBytes)}`;
  return ['io.max', `${device} ${limits} riops=${value(readOperations)} wiops=${value(writeOperations)}`];
}

function diskWeights({ diskPriority }: RuntimeLimits, { diskWeights: files = [] }: CgroupLayout): Setting[] {
  if (diskPriority === undefined) return [];
  return files.map((file) => [file, diskPriority === 0 ? 10 : 100 * diskPriority]);
}

/** Adds the pseudo controller memory.memsw when the kernel counts swap (v1). */
export async function probeSwapAccounting(host: Host, layout: CgroupLayout): Promise<CgroupLayout> {
  const memory = layout.controllers.get('memory');
  if (layout.unified || memory === undefined) return layout;
  if (!(await host.exists(`${memory}/memory.memsw.limit_in_bytes`))) return layout;
  return { ...layout, controllers: new Map([...layout.controllers, ['memory.memsw', memory]]) };
}

/** Name of the container's group, from /proc/PID/cgroup of any of its processes; undefined when it is not liblxc's. */
export function payloadGroup(procCgroup: string): string | undefined {
  return /:\/?(?:.*\/)?(lxc\.payload\.[^/\n]+)/.exec(procCgroup)?.[1];
}

/** Reads a small file of the kernel; undefined when it is not there. */
export type ReadKernelFile = (path: string) => string | undefined;
type Read = (controller: string, file: string) => string | undefined;

/** The figures of one group; a controller that is absent leaves its fields out. */
export function readUsage(readFile: ReadKernelFile, layout: CgroupLayout, group: string): RuntimeUsage {
  const read: Read = (controller, file) => {
    const mount = layout.controllers.get(controller);
    return mount === undefined ? undefined : readFile(`${mount}/${group}/${file}`);
  };
  const figures = layout.unified ? unifiedUsage(read) : v1Usage(layout, read);
  return Object.fromEntries(Object.entries(figures).filter(([, value]) => value !== undefined));
}

type Figures = { [Key in keyof RuntimeUsage]: number | undefined };

function v1Usage(layout: CgroupLayout, read: Read): Figures {
  const number = (controller: string, file: string) => toNumber(read(controller, file));
  const memoryBytes = number('memory', 'memory.usage_in_bytes');
  const memoryPeakBytes = number('memory', 'memory.max_usage_in_bytes');
  const swap = hasMemsw(layout)
    ? {
        swapBytes: difference(number('memory', 'memory.memsw.usage_in_bytes'), memoryBytes),
        swapPeakBytes: difference(number('memory', 'memory.memsw.max_usage_in_bytes'), memoryPeakBytes),
      }
    : {};
  return {
    cpuNs: number('cpuacct', 'cpuacct.usage'),
    memoryBytes,
    memoryPeakBytes,
    processes: number('pids', 'pids.current'),
    ...swap,
  };
}

function unifiedUsage(read: Read): Figures {
  const number = (controller: string, file: string) => toNumber(read(controller, file));
  const usec = toNumber(/^usage_usec (\d+)$/m.exec(read('cpu', 'cpu.stat') ?? '')?.[1]);
  return {
    cpuNs: usec === undefined ? undefined : usec * 1000,
    memoryBytes: number('memory', 'memory.current'),
    memoryPeakBytes: number('memory', 'memory.peak'),
    swapBytes: number('memory', 'memory.swap.current'),
    processes: number('pids', 'pids.current'),
  };
}

function toNumber(text: string | undefined): number | undefined {
  const value = Number.parseInt(text ?? '', 10);
  return Number.isNaN(value) ? undefined : value;
}

function difference(both: number | undefined, one: number | undefined): number | undefined {
  return both === undefined || one === undefined ? undefined : Math.max(0, both - one);
}
