// Values of configuration keys as LXD writes them: booleans, sizes, CPU lists (lxd-engine-contract section 3).
import { AppError } from '#src/lib/errors.ts';

const TRUE = new Set(['true', '1', 'yes', 'on']);
const FALSE = new Set(['false', '0', 'no', 'off', '']);

/** Absent and empty are `fallback`. */
export function parseBoolean(value: string | undefined, fallback = false): boolean {
  if (value === undefined || value === '') return fallback;
  const word = value.toLowerCase();
  if (TRUE.has(word)) return true;
  if (FALSE.has(word)) return false;
  throw new AppError('invalid', `Invalid value for a boolean "${value}"`);
}

const UNITS: Readonly<Record<string, number>> = Object.fromEntries([
  ['', 1],
  ['B', 1],
  [' bytes', 1],
  ...['kB', 'MB', 'GB', 'TB', 'PB', 'EB'].map((unit, index) => [unit, 1000 ** (index + 1)] as const),
  ...['KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'].map((unit, index) => [unit, 1024 ** (index + 1)] as const),
]);

/** Bytes: an integer and a unit, no fractions. */
export function parseSize(value: string): number {
  const match = /^(\d+)(\D*)$/.exec(value.trim());
  const factor = UNITS[match?.[2] ?? '?'];
  if (!match || factor === undefined) throw new AppError('invalid', `Invalid value: ${value}`);
  return Number(match[1]) * factor;
}

/** `512MB`, or `50%` of `totalBytes`. */
export function parseMemory(value: string, totalBytes: number): number {
  const percent = /^(\d+)%$/.exec(value)?.[1];
  if (percent === undefined) {
    const bytes = parseSize(value);
    if (bytes === 0) throw new AppError('invalid', "Memory limit can't be 0");
    return bytes;
  }
  if (Number(percent) === 0) throw new AppError('invalid', "Memory limit can't be 0%");
  return Math.floor(totalBytes / 100) * Number(percent);
}

/** `0-2,7` → [0, 1, 2, 7]. A plain number is a count, not a list: ask isCpuCount() first. */
export function parseCpuList(value: string): readonly number[] {
  const cpus = value.split(',').flatMap((part) => {
    const match = /^(\d+)(?:-(\d+))?$/.exec(part.trim());
    if (!match) throw new AppError('invalid', 'Invalid CPU limit syntax');
    const first = Number(match[1]);
    const last = Number(match[2] ?? match[1]);
    if (last < first || last > 8191) throw new AppError('invalid', 'Invalid CPU limit syntax');
    return Array.from({ length: last - first + 1 }, (_, index) => first + index);
  });
  return [...new Set(cpus)].sort((left, right) => left - right);
}

export function isCpuCount(value: string): boolean {
  return /^\d+$/.test(value);
}

export type CpuAllowance = { readonly percent: number } | { readonly quotaUs: number; readonly periodUs: number };

/** `50%` or `25ms/100ms`. */
export function parseCpuAllowance(value: string): CpuAllowance {
  const percent = /^(\d+)%$/.exec(value)?.[1];
  if (percent !== undefined) return { percent: Number(percent) };
  const slice = /^(\d+)ms\/(\d+)ms$/.exec(value);
  if (!slice || Number(slice[2]) === 0) throw new AppError('invalid', `Invalid allowance: ${value}`);
  return { quotaUs: Number(slice[1]) * 1000, periodUs: Number(slice[2]) * 1000 };
}

export function parseInteger(value: string): number {
  if (!/^[+-]?\d+$/.test(value)) throw new AppError('invalid', `Invalid value for an integer "${value}"`);
  return Number(value);
}
