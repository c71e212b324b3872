// Limits of an instance's configuration as the runtime takes them (lxd-engine-contract section 4.2).
import { totalmem } from 'node:os';
import type { RuntimeLimits } from '#drivers/runtime/driver.ts';
import type { ConfigMap } from '../types.ts';
import { parseBoolean, parseCpuAllowance, parseMemory, parseSize } from './values.ts';

const HUGEPAGE_SIZES = ['64KB', '1MB', '2MB', '1GB'];
const NORMAL_WEIGHT = 100;
const TOP_PRIORITY = 10;

/** `cpus`: of the host, those that the instance has; undefined: all. */
export function runtimeLimits(config: ConfigMap, cpus?: readonly number[]): RuntimeLimits {
  const value = (key: string): string | undefined => (config[key] === '' ? undefined : config[key]);
  const memory = value('limits.memory');
  const number = (key: string): number | undefined => {
    const text = value(key);
    return text === undefined ? undefined : Number(text);
  };
  return omitUndefined({
    memory: memory === undefined ? undefined : memoryLimit(memory, config),
    swap: swapLimit(value('limits.memory.swap')),
    swapPriority: number('limits.memory.swap.priority'),
    cpuSet: cpus?.join(','),
    ...cpuTime(config),
    processes: number('limits.processes'),
    diskPriority: number('limits.disk.priority'),
    hugepages: hugepages(config),
  });
}

/** limits.cpu; undefined: none. */
export function cpuLimit(config: ConfigMap): string | undefined {
  return config['limits.cpu'] === '' ? undefined : config['limits.cpu'];
}

function memoryLimit(memory: string, config: ConfigMap): RuntimeLimits['memory'] {
  return {
    bytes: parseMemory(memory, totalmem()),
    enforce: config['limits.memory.enforce'] === 'soft' ? 'soft' : 'hard',
  };
}

/** A boolean, or a size as Incus has it (`instance_memory_swap_bytes`): "0" and "1" are the former, as ever. */
export function swapLimit(value: string | undefined): RuntimeLimits['swap'] {
  if (value !== undefined && /^\d+\s*[a-zA-Z]+$/.test(value)) return parseSize(value);
  return parseBoolean(value, true) ? undefined : false;
}

function cpuTime(config: ConfigMap): { cpuWeight?: number; cpuQuota?: NonNullable<RuntimeLimits['cpuQuota']> } {
  const allowance = config['limits.cpu.allowance'] ?? '';
  const priority = config['limits.cpu.priority'] ?? '';
  const parsed = allowance === '' ? undefined : parseCpuAllowance(allowance);
  const share = parsed && 'percent' in parsed ? parsed.percent : NORMAL_WEIGHT;
  const off = priority === '' ? 0 : TOP_PRIORITY - Number(priority);
  const weight = share - off;
  return {
    ...(weight !== NORMAL_WEIGHT && { cpuWeight: weight }),
    ...(parsed && !('percent' in parsed) && { cpuQuota: parsed }),
  };
}

function hugepages(config: ConfigMap): Record<string, number> | undefined {
  const limits = HUGEPAGE_SIZES.flatMap((size) => {
    const value = config[`limits.hugepages.${size}`] ?? '';
    return value === '' ? [] : [[size, parseSize(value)] as const];
  });
  return limits.length === 0 ? undefined : Object.fromEntries(limits);
}

type Defined<T> = { [K in keyof T]: Exclude<T[K], undefined> };

function omitUndefined<T extends object>(value: T): Defined<Partial<T>> {
  return Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined)) as Defined<Partial<T>>;
}
