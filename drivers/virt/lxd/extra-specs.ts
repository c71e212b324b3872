// Extra specs of a flavor as settings of an instance: limits, and what a container may be. A demand that cannot be met is an error,
// never ignored.
import type { StringMap } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import { truthOf } from '#src/lib/truth.ts';
import type { SpawnFlavor } from '../driver.ts';

/** What the operator lets flavors demand. */
export interface FlavorPolicy {
  readonly allowNesting: boolean;
  readonly allowPrivileged: boolean;
}

export interface FlavorSettings {
  readonly config: StringMap;
  /** Options of the root disk. */
  readonly rootDisk: StringMap;
}

type Specs = SpawnFlavor['extraSpecs'];

/** Keys of an instance that a flavor decides: what another one does not set goes. */
export const FLAVOR_KEYS: readonly string[] = [
  'limits.cpu',
  'limits.memory',
  'limits.memory.swap',
  'limits.cpu.allowance',
  'security.nesting',
  'security.privileged',
  'security.idmap.isolated',
];

const PERIOD_MS = 100;
const NORMAL_SHARES = 1024;

/** AppError 'invalid' for values that mean nothing, 'forbidden' for what the operator does not allow, 'unsupported'. */
export function flavorSettings({ extraSpecs, vcpus }: SpawnFlavor, policy: FlavorPolicy): FlavorSettings {
  return { config: { ...cpuTime(extraSpecs, vcpus), ...nature(extraSpecs, policy) }, rootDisk: diskLimits(extraSpecs) };
}

function nature(specs: Specs, { allowNesting, allowPrivileged }: FlavorPolicy): StringMap {
  const demands = {
    'security.nesting': demanded(specs, 'lxd:nested_allowed', allowNesting),
    'security.privileged': demanded(specs, 'lxd:privileged_allowed', allowPrivileged),
    'security.idmap.isolated': demanded(specs, 'lxd:isolated', true),
  };
  if (demands['security.privileged'] && demands['security.idmap.isolated']) {
    throw new AppError('invalid', 'the flavor wants a container with all ids of the host, and with ids of its own');
  }
  demanded(specs, 'lxd:suspend_to_disk', true); // what it asks for is seen when it is suspended
  return Object.fromEntries(Object.entries(demands).flatMap(([key, isOn]) => (isOn ? [[key, 'true']] : [])));
}

function demanded(specs: Specs, key: string, isAllowed: boolean): boolean {
  const value = (specs[key] ?? '').trim();
  const truth = value === '' ? false : truthOf(value);
  if (truth === false) return false;
  if (truth === undefined) throw new AppError('invalid', `${key} of the flavor is neither true nor false`);
  if (isAllowed) return true;
  throw new AppError('forbidden', `${key} of the flavor is not allowed on this host`);
}

/** As for libvirt: shares are relative to 1024, quota and period microseconds, the quota that of one processor. */
function cpuTime(specs: Specs, vcpus: number): StringMap {
  const shares = numberOf(specs, 'quota:cpu_shares');
  const quotaUs = numberOf(specs, 'quota:cpu_quota');
  const periodUs = numberOf(specs, 'quota:cpu_period') ?? PERIOD_MS * 1000;
  const hasQuota = quotaUs !== undefined && quotaUs > 0;
  if (hasQuota && shares !== undefined) {
    throw new AppError('unsupported', 'the flavor has quota:cpu_shares and quota:cpu_quota, of which one is possible');
  }
  if (hasQuota) {
    if (periodUs <= 0) throw new AppError('invalid', 'quota:cpu_period of the flavor is not positive');
    const quotaMs = Math.max(1, Math.round((quotaUs / periodUs) * vcpus * PERIOD_MS));
    return { 'limits.cpu.allowance': `${quotaMs}ms/${PERIOD_MS}ms` };
  }
  if (shares === undefined) return {};
  return { 'limits.cpu.allowance': `${Math.max(1, Math.round((shares * 100) / NORMAL_SHARES))}%` };
}

/** An engine has one limit of each kind: bytes or operations, of both directions or of each. */
function diskLimits(specs: Specs): StringMap {
  const [read, write, total] = (['read', 'write', 'total'] as const).map((direction) => diskRate(specs, direction));
  if (total !== undefined && (read !== undefined || write !== undefined)) {
    throw new AppError('invalid', 'the flavor limits its disk in all and by direction');
  }
  return {
    ...(read !== undefined && { 'limits.read': read }),
    ...(write !== undefined && { 'limits.write': write }),
    ...(total !== undefined && { 'limits.max': total }),
  };
}

function diskRate(specs: Specs, direction: 'read' | 'write' | 'total'): string | undefined {
  const bytes = positive(numberOf(specs, `quota:disk_${direction}_bytes_sec`));
  const operations = positive(numberOf(specs, `quota:disk_${direction}_iops_sec`));
  if (bytes !== undefined && operations !== undefined) {
    const text = `the flavor limits bytes and operations of its disk (${direction}), of which one is possible`;
    throw new AppError('unsupported', text);
  }
  if (bytes !== undefined) return `${bytes}B`;
  return operations === undefined ? undefined : `${operations}iops`;
}

/** 0 is no limit. */
function positive(value: number | undefined): number | undefined {
  if (value !== undefined && value < 0) throw new AppError('invalid', 'the flavor has a negative limit of its disk');
  return value === 0 ? undefined : value;
}

function numberOf(specs: Specs, key: string): number | undefined {
  const text = specs[key]?.trim();
  if (text === undefined || text === '') return undefined;
  const value = Number(text);
  if (/^-?\d{1,15}$/.test(text) && Number.isSafeInteger(value)) return value;
  throw new AppError('invalid', `${key} of the flavor is no number`);
}
