// Options of nics: which there are for a driver, and what they say (lxd-engine-contract section 3.2).
import { AppError } from '#src/lib/errors.ts';
import type { NicInfo } from '../driver.ts';
import { type Check, CHECKS } from './nic-checks.ts';

/** AppError 'invalid': what is missing first, then what is malformed, then what is unknown. `user.*` is the user's. */
export function validateNic(
  info: NicInfo,
  config: Readonly<Record<string, string>>,
  own: Readonly<Record<string, Check>> = {},
): void {
  for (const option of info.required) {
    if ((config[option] ?? '') === '') throw badOption(option, 'Required value');
  }
  for (const [option, value] of Object.entries(config)) {
    if (option.startsWith('user.')) continue;
    if (!['type', 'nictype', 'network', ...info.options].includes(option))
      throw new AppError('invalid', `Invalid device option "${option}"`);
    if (value !== '') checkValue(option, value, own[option] ?? CHECKS[option]);
  }
}

function checkValue(option: string, value: string, check: Check | undefined): void {
  const complaint = check?.(value);
  if (complaint !== undefined) throw badOption(option, complaint);
}

function badOption(option: string, complaint: string): AppError {
  return new AppError('invalid', `Invalid value for device option "${option}": ${complaint}`);
}

/** The option as a number; absent or empty: undefined. */
export function numberOption(config: Readonly<Record<string, string>>, option: string): number | undefined {
  const value = config[option];
  return value === undefined || value === '' ? undefined : Number(value);
}

/** A checked boolean. */
export function isOn(value: string | undefined): boolean {
  return /^(true|1|yes|on)$/i.test(value ?? '');
}

/** What stands between commas; [] when absent. */
export function listOption(config: Readonly<Record<string, string>>, option: string): readonly string[] {
  return (config[option] ?? '').split(',').flatMap((part) => part.trim() || []);
}
