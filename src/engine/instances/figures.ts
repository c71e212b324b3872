// Figures of the running instances for GET /1.0/metrics. Nothing is forked.
import { basename } from 'node:path';
import { readlinkSync } from 'node:fs';
import type { RuntimeDriver } from '#drivers/runtime/driver.ts';
import { addInstance, type InstanceFigures } from '../metrics/instance-metrics.ts';
import type { MetricSet } from '../metrics/open-metrics.ts';
import { rootDisks } from './disks.ts';
import type { InstanceInfo, Instances } from './instances.ts';
import type { InstanceState } from './state.ts';

export interface FigureParts {
  readonly instances: Instances;
  readonly runtime: RuntimeDriver;
}

/** `projects`: those that the asker may see; undefined: all. */
export async function addInstanceMetrics(
  { instances, runtime }: FigureParts,
  set: MetricSet,
  { projects, signal }: { readonly projects: ReadonlySet<string> | undefined; readonly signal: AbortSignal },
): Promise<void> {
  const running = instances
    .list()
    .filter(({ status, record }) => status !== 'Stopped' && projects?.has(record.project) !== false);
  const states = await instances.states(running, signal);
  for (const { info, state } of states) {
    if (state.pid <= 0) continue;
    addInstance(set, await figuresOf(runtime, { info, state }, signal));
  }
}

interface Seen {
  readonly info: InstanceInfo;
  readonly state: InstanceState;
}

async function figuresOf(runtime: RuntimeDriver, { info, state }: Seen, signal: AbortSignal): Promise<InstanceFigures> {
  const { record, expanded } = info;
  const [root] = rootDisks(expanded.devices);
  const usedBytes = root && state.disk[root.device];
  return {
    name: record.name,
    project: record.project,
    state,
    statistics: await runtime.statistics(state.pid, signal),
    diskName,
    ...(usedBytes !== undefined && {
      filesystem: { usedBytes, ...(root?.sizeBytes !== undefined && { sizeBytes: root.sizeBytes }) },
    }),
  };
}

/** MAJOR:MINOR to the name of the disk; a disk that is gone keeps its numbers. */
function diskName(device: string): string {
  try {
    return basename(readlinkSync(`/sys/dev/block/${device}`));
  } catch {
    return device;
  }
}
