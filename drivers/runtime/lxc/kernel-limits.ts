// Limits that not every kernel can hold a container to: weights of disks, pages of a size, priorities of swap and network.
import type { Host } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';
import type { RuntimeLimits } from '../driver.ts';
import { type CgroupLayout, limitSettings } from './cgroups.ts';

type Reads = Pick<Host, 'exists' | 'list' | 'readFile'>;

const HUGEPAGES = '/sys/kernel/mm/hugepages';

/**
 * The layout with what these limits need to know of the kernel. AppError 'unsupported' names a limit that it cannot hold. `before`: those
 * that are lifted.
 */
export async function layoutFor(
  host: Reads,
  layout: CgroupLayout,
  limits: RuntimeLimits,
  before: RuntimeLimits = {},
): Promise<CgroupLayout> {
  await checkHugepages(host, layout, limits);
  checkSwap(layout, limits);
  if (limits.diskPriority === undefined && before.diskPriority === undefined) return layout;
  const diskWeights = await diskWeightFiles(host, layout);
  if (limits.diskPriority === undefined) return { ...layout, diskWeights: diskWeights.map(({ file }) => file) };
  const effective = diskWeights.filter(({ hasEffect }) => hasEffect);
  if (effective.length > 0) return { ...layout, diskWeights: effective.map(({ file }) => file) };
  const missing = layout.unified ? 'no disk is set up in io.cost.qos' : 'blkio.weight cgroup controller is missing';
  throw new AppError(
    'unsupported',
    `Cannot apply limits.disk.priority as ${missing} and no disk has the scheduler bfq`,
  );
}

interface WeightFile {
  readonly file: string;
  /** Else the kernel keeps what is written there, and does nothing with it. */
  readonly hasEffect: boolean;
}

/** They are no files of the root group. Asked each time: schedulers of disks come and go. */
async function diskWeightFiles(host: Reads, { unified, controllers }: CgroupLayout): Promise<readonly WeightFile[]> {
  const folder = controllers.get(unified ? 'io' : 'blkio');
  if (folder === undefined) return [];
  const [sign, weight, ofBfq] = unified
    ? (['io.cost.qos', 'io.weight', 'io.bfq.weight'] as const)
    : (['blkio.weight', 'blkio.weight', 'blkio.bfq.weight'] as const);
  const found: WeightFile[] = [];
  if (await host.exists(`${folder}/${sign}`)) {
    // a line for each disk that somebody has set up
    const hasEffect = !unified || /\benable=1\b/.test(await host.readFile(`${folder}/${sign}`));
    found.push({ file: weight, hasEffect });
  }
  if (await hasBfq(host)) found.push({ file: ofBfq, hasEffect: true });
  return found;
}

async function hasBfq(host: Reads): Promise<boolean> {
  for (const disk of await host.list('/sys/block')) {
    const scheduler = await host.readFile(`/sys/block/${disk}/queue/scheduler`).catch(() => '');
    if (scheduler.includes('[bfq]')) return true;
  }
  return false;
}

async function checkHugepages(host: Reads, { controllers }: CgroupLayout, { hugepages }: RuntimeLimits): Promise<void> {
  if (hugepages === undefined || !controllers.has('hugetlb')) return;
  const sizes = new Set((await host.list(HUGEPAGES)).map(sizeOf));
  const unknown = Object.keys(hugepages).find((size) => !sizes.has(size));
  if (unknown === undefined) return;
  throw new AppError('unsupported', `Cannot apply limits.hugepages.${unknown}: this host has no pages of that size`);
}

/** Bytes of swap are counted, or not granted: without a count they would be all that the host has. */
function checkSwap({ unified, controllers }: CgroupLayout, { swap, memory }: RuntimeLimits): void {
  if (typeof swap !== 'number' || (unified && controllers.has('memory'))) return;
  const refused = (why: string): AppError =>
    new AppError('unsupported', `Cannot apply limits.memory.swap with a size: ${why}`);
  if (!controllers.has('memory.memsw'))
    throw refused('the kernel does not count swap (its option swapaccount=1 is off)');
  if (memory?.enforce !== 'hard') throw refused('with control groups of version 1 it needs a hard limits.memory');
}

/** hugepages-2048kB → 2MB, as files of the controller are named. */
function sizeOf(folder: string): string {
  const kib = Number(/^hugepages-(\d+)kB$/.exec(folder)?.[1] ?? 0);
  if (kib >= 2 ** 20) return `${kib / 2 ** 20}GB`;
  return kib >= 1024 ? `${kib / 1024}MB` : `${kib}KB`;
}

/** Limits that this host has nothing for: they are ignored with a warning, as LXD does. */
export function ignoredLimits(limits: RuntimeLimits, layout: CgroupLayout): readonly string[] {
  const isMissing = (controller: string): boolean => !layout.controllers.has(controller);
  const settings = limitSettings(limits, { ...layout, diskWeights: [] });
  const files = settings.filter(({ controller }) => isMissing(controller)).map(({ file }) => file);
  const v1Only = [
    ...(limits.swapPriority === undefined ? [] : ['limits.memory.swap.priority']),
    ...(limits.networkPriorities === undefined ? [] : ['limits.network.priority']),
  ];
  return [...new Set([...files, ...(layout.unified ? v1Only : [])])];
}
