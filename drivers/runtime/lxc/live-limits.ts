// Limits of a container that runs: what has to be written into which file of its control group, in an order that the kernel takes.
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { RuntimeLimits } from '../driver.ts';
import { type CgroupLayout, type CgroupSetting, limitSettings } from './cgroups.ts';

/** Writes one file of the container's group. */
export type WriteSetting = (setting: CgroupSetting) => Promise<void>;

const NO_LIMIT_V1: Readonly<Record<string, string>> = {
  'memory.limit_in_bytes': '-1',
  'memory.memsw.limit_in_bytes': '-1',
  'memory.soft_limit_in_bytes': '-1',
  'memory.swappiness': '60',
  'cpu.shares': '1024',
  'cpu.cfs_quota_us': '-1',
  'cpu.cfs_period_us': '100000',
  'pids.max': 'max',
  'blkio.weight': '500',
  'blkio.bfq.weight': '100',
};
const NO_LIMIT_V2: Readonly<Record<string, string>> = {
  'memory.max': 'max',
  'memory.high': 'max',
  'memory.swap.max': 'max',
  'cpu.weight': '100',
  'cpu.max': 'max 100000',
  'pids.max': 'max',
  'io.weight': '100',
  'io.bfq.weight': '100',
};

/** What lifts a limit that is set by `setting`. */
function lifted({ file, value }: CgroupSetting, layout: CgroupLayout): string | undefined {
  const device = value.split(' ')[0];
  if (file === 'io.max') return `${device} rbps=max wbps=max riops=max wiops=max`;
  if (file.startsWith('blkio.throttle.') || file === 'net_prio.ifpriomap') return `${device} 0`;
  if (file.startsWith('hugetlb.')) return layout.unified ? 'max' : '-1';
  return (layout.unified ? NO_LIMIT_V2 : NO_LIMIT_V1)[file];
}

/** Settings of different block devices and interfaces are different settings of one file. */
function keyOf({ file, value }: CgroupSetting): string {
  const perDevice = ['io.max', 'net_prio.ifpriomap'].includes(file) || file.startsWith('blkio.throttle.');
  return perDevice ? `${file} ${value.split(' ')[0]}` : file;
}

/** CPUs are the balancer's: it always says which. */
export async function applyLimits(
  write: WriteSetting,
  layout: CgroupLayout,
  { before, after }: { readonly before: RuntimeLimits; readonly after: RuntimeLimits },
): Promise<void> {
  const old = settingsByKey(before, layout);
  const next = settingsByKey(after, layout);
  const keys = [...new Set([...old.keys(), ...next.keys()])];
  const changes = keys.flatMap((key) => changeOf(old.get(key), next.get(key), layout));
  await writeAll(write, inOrder(changes));
}

interface Change extends Omit<CgroupSetting, 'value'> {
  readonly from: string;
  readonly to: string;
}

/** At most one. */
function changeOf(
  old: CgroupSetting | undefined,
  next: CgroupSetting | undefined,
  layout: CgroupLayout,
): readonly Change[] {
  const known = old ?? next;
  if (!known) return [];
  const from = old?.value ?? lifted(known, layout);
  const to = next?.value ?? lifted(known, layout);
  return from === undefined || to === undefined || from === to ? [] : [{ ...known, from, to }];
}

function settingsByKey(limits: RuntimeLimits, layout: CgroupLayout): Map<string, CgroupSetting> {
  return new Map(limitSettings(limits, layout).map((setting) => [keyOf(setting), setting]));
}

const MEMORY = 'memory.limit_in_bytes';
const MEMORY_AND_SWAP = 'memory.memsw.limit_in_bytes';

/** Memory may never be more than memory plus swap: raised from the outside in, lowered from the inside out. */
function inOrder(changes: readonly Change[]): readonly Change[] {
  const both = changes.find(({ file }) => file === MEMORY_AND_SWAP);
  if (!both || !isMore(both.to, both.from)) return changes;
  const rest = changes.filter((change) => change !== both);
  const at = rest.findIndex(({ file }) => file === MEMORY);
  return at < 0 ? [both, ...rest] : rest.toSpliced(at, 0, both);
}

function isMore(value: string, than: string): boolean {
  const bytes = (text: string): number => (text === '-1' ? Number.POSITIVE_INFINITY : Number(text));
  return bytes(value) > bytes(than);
}

async function writeAll(write: WriteSetting, changes: readonly Change[]): Promise<void> {
  const done: Change[] = [];
  for (const change of changes) {
    try {
      await write({ ...change, value: change.to });
      done.push(change);
    } catch (cause) {
      for (const { from, ...one } of done.reverse()) await write({ ...one, value: from });
      throw new AppError('internal', `Failed to set ${change.file} to ${change.to}: ${messageOf(cause)}`, { cause });
    }
  }
}
