// Figures of running instances under LXD's names (GET /1.0/metrics).
import type { RuntimeStatistics } from '#drivers/runtime/driver.ts';
import type { InstanceState } from '../instances/state.ts';
import type { Labels, MetricFamily, MetricSet } from './open-metrics.ts';

export interface InstanceFigures {
  readonly name: string;
  readonly project: string;
  readonly state: InstanceState;
  readonly statistics: RuntimeStatistics;
  /** Of the root, when its pool can tell. */
  readonly filesystem?: { readonly sizeBytes?: number; readonly usedBytes: number };
  /** MAJOR:MINOR to sda. */
  readonly diskName: (device: string) => string;
}

const counter = (name: string, help: string): MetricFamily => ({ name: `lxd_${name}_total`, type: 'counter', help });
const gauge = (name: string, help: string): MetricFamily => ({ name: `lxd_${name}`, type: 'gauge', help });

const CPU = counter('cpu_seconds', 'The total number of CPU time used in seconds.');
const PROCESSES = gauge('procs_total', 'The number of running processes.');
const SIZE = gauge('filesystem_size_bytes', 'The size of the filesystem in bytes.');
const AVAILABLE = gauge('filesystem_avail_bytes', 'The number of available space in bytes.');
const FREE = gauge('filesystem_free_bytes', 'The number of free space in bytes.');
const TOTAL_MEMORY = gauge('memory_MemTotal_bytes', 'The amount of memory that may be used.');
const FREE_MEMORY = gauge('memory_MemFree_bytes', 'The amount of free memory.');
const AVAILABLE_MEMORY = gauge('memory_MemAvailable_bytes', 'The amount of available memory.');
const SWAP = gauge('memory_Swap_bytes', 'The amount of used swap memory.');
const ACTIVE = gauge('memory_Active_bytes', 'The amount of memory on active LRU list.');
const INACTIVE = gauge('memory_Inactive_bytes', 'The amount of memory on inactive LRU list.');

/** By the kernel's names: first that of v1, then that of v2. */
const MEMORY: readonly (readonly [MetricFamily, ...string[]])[] = [
  [gauge('memory_Active_anon_bytes', 'The amount of anonymous memory on active LRU list.'), 'active_anon'],
  [gauge('memory_Active_file_bytes', 'The amount of file-backed memory on active LRU list.'), 'active_file'],
  [gauge('memory_Inactive_anon_bytes', 'The amount of anonymous memory on inactive LRU list.'), 'inactive_anon'],
  [gauge('memory_Inactive_file_bytes', 'The amount of file-backed memory on inactive LRU list.'), 'inactive_file'],
  [gauge('memory_Cached_bytes', 'The amount of cached memory.'), 'cache', 'file'],
  [gauge('memory_Dirty_bytes', 'The amount of memory waiting to get written back to the disk.'), 'dirty', 'file_dirty'],
  [gauge('memory_Mapped_bytes', 'The amount of mapped memory.'), 'mapped_file', 'file_mapped'],
  [gauge('memory_RSS_bytes', 'The amount of anonymous and swap cache memory.'), 'rss', 'anon'],
  [gauge('memory_Shmem_bytes', 'The amount of cached filesystem data that is swap-backed.'), 'shmem'],
  [gauge('memory_Unevictable_bytes', 'The amount of unevictable memory.'), 'unevictable'],
  [gauge('memory_Writeback_bytes', 'The amount of memory queued for syncing to disk.'), 'writeback', 'file_writeback'],
];

const DISK = [
  [counter('disk_read_bytes', 'The total number of bytes read.'), 'readBytes'],
  [counter('disk_reads_completed', 'The total number of completed reads.'), 'reads'],
  [counter('disk_written_bytes', 'The total number of bytes written.'), 'writtenBytes'],
  [counter('disk_writes_completed', 'The total number of completed writes.'), 'writes'],
] as const;

const NETWORK = [
  [counter('network_receive_bytes', 'The amount of received bytes on a given interface.'), 'bytesReceived'],
  [counter('network_receive_drop', 'The amount of received dropped bytes on a given interface.'), 'droppedReceived'],
  [counter('network_receive_errs', 'The amount of received errors on a given interface.'), 'errorsReceived'],
  [counter('network_receive_packets', 'The amount of received packets on a given interface.'), 'packetsReceived'],
  [counter('network_transmit_bytes', 'The amount of transmitted bytes on a given interface.'), 'bytesSent'],
  [counter('network_transmit_drop', 'The amount of transmitted dropped bytes on a given interface.'), 'droppedSent'],
  [counter('network_transmit_errs', 'The amount of transmitted errors on a given interface.'), 'errorsSent'],
  [counter('network_transmit_packets', 'The amount of transmitted packets on a given interface.'), 'packetsSent'],
] as const;

export function addInstance(set: MetricSet, figures: InstanceFigures): void {
  const { name, project, state, statistics, filesystem } = figures;
  const labels = { name, project, type: 'container' };
  set.add(PROCESSES, state.processes, labels);
  addCpu(set, figures, labels);
  addMemory(set, figures, labels);
  for (const disk of statistics.disks) {
    const device = { device: figures.diskName(disk.device), ...labels };
    for (const [family, field] of DISK) set.add(family, disk[field], device);
  }
  for (const { name: device, counters } of state.network ?? []) {
    for (const [family, field] of NETWORK) set.add(family, counters[field], { device, ...labels });
  }
  if (filesystem?.sizeBytes === undefined) return;
  const free = Math.max(0, filesystem.sizeBytes - filesystem.usedBytes);
  const root = { mountpoint: '/', ...labels };
  set.add(SIZE, filesystem.sizeBytes, root);
  set.add(AVAILABLE, free, root);
  set.add(FREE, free, root);
}

function addCpu(set: MetricSet, { state, statistics }: InstanceFigures, labels: Labels): void {
  const { cpuUserNs, cpuSystemNs } = statistics;
  if (cpuUserNs === undefined || cpuSystemNs === undefined) {
    set.add(CPU, state.cpuNs / 1e9, { cpu: '0', mode: 'user', ...labels });
    return;
  }
  set.add(CPU, cpuUserNs / 1e9, { cpu: '0', mode: 'user', ...labels });
  set.add(CPU, cpuSystemNs / 1e9, { cpu: '0', mode: 'system', ...labels });
}

function addMemory(set: MetricSet, { state, statistics }: InstanceFigures, labels: Labels): void {
  const { memory, memoryLimitBytes } = statistics;
  for (const [family, ...names] of MEMORY) {
    const name = names.find((one) => memory[one] !== undefined);
    if (name !== undefined) set.add(family, memory[name], labels);
  }
  set.add(ACTIVE, sum(memory['active_anon'], memory['active_file']), labels);
  set.add(INACTIVE, sum(memory['inactive_anon'], memory['inactive_file']), labels);
  set.add(SWAP, state.memory.swapUsage, labels);
  if (memoryLimitBytes === undefined) return;
  const free = Math.max(0, memoryLimitBytes - state.memory.usage);
  set.add(TOTAL_MEMORY, memoryLimitBytes, labels);
  set.add(FREE_MEMORY, free, labels);
  set.add(AVAILABLE_MEMORY, free + (memory['inactive_file'] ?? 0) + (memory['active_file'] ?? 0), labels);
}

function sum(left: number | undefined, right: number | undefined): number | undefined {
  return left === undefined || right === undefined ? undefined : left + right;
}
