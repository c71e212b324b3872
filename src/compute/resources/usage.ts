// What instances take of the host, and the statistics that schedulers weigh hosts by (contract sections 4.7 and 4.8).
import type { NovaObject } from '#src/nova/objects/object.ts';
import { TASK_STATES, VM_STATES } from '#src/nova/states.ts';
import type { ResourcesConfig } from '../config/config.ts';
import { pinsOf } from './pinning.ts';

/** The share of one instance. */
export interface InstanceUsage {
  readonly memoryMib: number;
  readonly vcpus: number;
  readonly diskGib: number;
  /** Processors of the host that are its alone. */
  readonly pins?: readonly number[];
  /** Absent for the room kept for an instance that is on its way to or from another host. */
  readonly state?: {
    readonly vm: string;
    readonly task: string | null;
    readonly osType: string | null;
    readonly projectId: string | null;
  };
}

export interface HostUsage {
  readonly memoryMib: number;
  readonly vcpus: number;
  readonly diskGib: number;
  readonly runningVms: number;
  readonly workload: number;
  readonly stats: Readonly<Record<string, string>>;
}

/**
 * Undefined: the instance takes nothing (any more). `pins`: of one whose topology is not at hand. `isOnVolume`: its root takes no room
 * here; absent: told by that it has no image.
 */
export function usageOf(
  instance: NovaObject<'Instance'>,
  known: { readonly pins?: readonly number[]; readonly isOnVolume?: boolean } = {},
): InstanceUsage | undefined {
  const vm = instance.get('vm_state') ?? '';
  const task = instance.get('task_state');
  if (vm === VM_STATES.deleted) return undefined;
  if (vm === VM_STATES.shelvedOffloaded && task !== TASK_STATES.spawning) return undefined;
  return {
    ...sizesOf(instance, known.isOnVolume ?? !instance.find('image_ref')),
    pins: instance.has('numa_topology') ? pinsOf(instance) : (known.pins ?? []),
    state: stateOf(instance),
  };
}

function stateOf(instance: NovaObject<'Instance'>): NonNullable<InstanceUsage['state']> {
  return {
    vm: instance.get('vm_state') ?? '',
    task: instance.get('task_state'),
    osType: instance.find('os_type') ?? null,
    projectId: instance.find('project_id') ?? null,
  };
}

/** From the flavor when it is loaded, else from the copy of its numbers in the instance. */
function sizesOf(instance: NovaObject<'Instance'>, isVolumeBacked: boolean): InstanceUsage {
  const flavor = instance.find('flavor');
  if (flavor) return flavorUsage(flavor, isVolumeBacked);
  return {
    memoryMib: instance.get('memory_mb') ?? 0,
    vcpus: instance.get('vcpus') ?? 0,
    diskGib: (isVolumeBacked ? 0 : (instance.get('root_gb') ?? 0)) + (instance.get('ephemeral_gb') ?? 0),
  };
}

/** Under which the room is counted that is kept for a move, beside the instance's own. */
export function moveKey(instanceUuid: string): string {
  return `move:${instanceUuid}`;
}

export function flavorUsage(flavor: NovaObject<'Flavor'>, isVolumeBacked: boolean): InstanceUsage {
  const rootGib = isVolumeBacked ? 0 : flavor.get('root_gb');
  return {
    memoryMib: flavor.get('memory_mb'),
    vcpus: flavor.get('vcpus'),
    diskGib: rootGib + flavor.get('ephemeral_gb') + flavor.get('swap') / 1024,
  };
}

/** The whole host: what is reserved and what all instances take. */
export function hostUsage(usages: Iterable<InstanceUsage>, config: ResourcesConfig, failedBuilds: number): HostUsage {
  const counts = new Map<string, number>();
  const add = (key: string): void => void counts.set(key, (counts.get(key) ?? 0) + 1);
  let memoryMib = config.reservedHostMemoryMib;
  let vcpus = config.reservedHostCpus;
  let diskGib = config.reservedHostDiskMib / 1024;
  for (const usage of usages) {
    memoryMib += usage.memoryMib;
    vcpus += usage.vcpus;
    diskGib += usage.diskGib;
    if (usage.state) for (const key of statKeys(usage.state)) add(key);
  }
  const counted = config.consecutiveBuildServiceDisableThreshold === 0 ? 0 : failedBuilds;
  return {
    memoryMib,
    vcpus,
    diskGib: Math.trunc(diskGib),
    runningVms: counts.get('num_instances') ?? 0,
    workload: workloadOf(counts),
    stats: { ...texts(counts), io_workload: String(ioWorkloadOf(counts)), failed_builds: String(counted) },
  };
}

function statKeys({ vm, task, osType, projectId }: NonNullable<InstanceUsage['state']>): readonly string[] {
  return [
    'num_instances',
    `num_vm_${vm}`,
    `num_task_${task ?? 'None'}`,
    `num_os_type_${osType ?? 'None'}`,
    `num_proj_${projectId ?? 'None'}`,
  ];
}

/** Instances with a task under way. */
function workloadOf(counts: ReadonlyMap<string, number>): number {
  const tasks = [...counts].filter(([key]) => key.startsWith('num_task_') && key !== 'num_task_None');
  return tasks.reduce((sum, [, count]) => sum + count, 0);
}

const HEAVY = [
  `num_vm_${VM_STATES.building}`,
  ...[
    TASK_STATES.rebuilding,
    TASK_STATES.resizePrep,
    TASK_STATES.resizeMigrating,
    TASK_STATES.imageSnapshot,
    TASK_STATES.imageBackup,
    TASK_STATES.rescuing,
    TASK_STATES.unshelving,
  ].map((task) => `num_task_${task}`),
] as const;

function ioWorkloadOf(counts: ReadonlyMap<string, number>): number {
  return HEAVY.reduce((sum, key) => sum + (counts.get(key) ?? 0), 0);
}

function texts(counts: ReadonlyMap<string, number>): Record<string, string> {
  return Object.fromEntries([...counts].map(([key, count]) => [key, String(count)]));
}
