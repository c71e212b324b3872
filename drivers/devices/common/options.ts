// Options of devices, checked with LXD's words (lxd-engine-contract section 3.2).
import { AppError } from '#src/lib/errors.ts';

export type OptionCheck = (value: string) => void;
export type OptionChecks = Readonly<Record<string, OptionCheck>>;
type Config = Readonly<Record<string, string>>;

/** What is malformed first, then what is unknown. Empty values are absent; `user.*` is the user's. */
export function checkOptions(config: Config, checks: OptionChecks): void {
  for (const [option, value] of Object.entries(config)) {
    if (option === 'type' || option.startsWith('user.')) continue;
    const check = Object.hasOwn(checks, option) ? checks[option] : undefined;
    if (!check) throw new AppError('invalid', `Invalid device option "${option}"`);
    if (value !== '') checkOne(option, value, check);
  }
}

function checkOne(option: string, value: string, check: OptionCheck): void {
  try {
    check(value);
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause);
    throw new AppError('invalid', `Invalid value for device option "${option}": ${text}`, { cause });
  }
}

export function textOf(config: Config, option: string): string {
  return config[option] ?? '';
}

const TRUE = /^(true|1|yes|on)$/i;
const FALSE = /^(false|0|no|off)$/i;

export function isTrue(config: Config, option: string, fallback = false): boolean {
  const value = textOf(config, option);
  return value === '' ? fallback : TRUE.test(value);
}

export const anyText: OptionCheck = () => undefined;

export const boolean: OptionCheck = (value) => {
  if (!TRUE.test(value) && !FALSE.test(value)) throw new AppError('invalid', `Invalid value for a boolean "${value}"`);
};

const MAX_ID = 0xffff_ffff;

export const userId: OptionCheck = (value) => {
  if (/^\d+$/.test(value) && Number(value) <= MAX_ID) return;
  throw new AppError('invalid', `Invalid value for uint32 "${value}"`);
};

export const octalMode: OptionCheck = (value) => {
  if (!/^[0-7]{1,4}$/.test(value)) throw new AppError('invalid', `Invalid value for octal file mode "${value}"`);
};

/** With Go's own words. */
export const uint32: OptionCheck = (value) => {
  if (/^\d+$/.test(value) && Number(value) <= MAX_ID) return;
  const what = /^\d+$/.test(value) ? 'value out of range' : 'invalid syntax';
  const text = `Invalid value for uint32 ${JSON.stringify(value)}: strconv.ParseUint: parsing ${JSON.stringify(value)}: ${what}`;
  throw new AppError('invalid', text);
};

/** A path inside the container: absolute or relative to its root, and not above it. */
export const insidePath: OptionCheck = (value) => {
  if (value.includes('\0') || value.includes('\n') || value.split('/').includes('..')) {
    throw new AppError('invalid', value);
  }
};
