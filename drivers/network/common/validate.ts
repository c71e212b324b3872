// Checks a network's configuration against the table of its driver, in LXD's words.
import { AppError } from '#src/lib/errors.ts';
import type { NetworkConfig } from '../driver.ts';
import type { Check } from './checks.ts';

export interface KeyTable {
  readonly keys: Readonly<Record<string, Check>>;
  readonly required?: readonly string[];
  /** Of keys that are not in the table; undefined: the key is unknown. */
  readonly other?: (key: string) => Check | undefined;
}

/** AppError 'invalid'. An empty value is an absent one. */
export function validateKeys(network: string, config: NetworkConfig, table: KeyTable): void {
  const missing = table.required?.find((key) => (config[key] ?? '') === '');
  if (missing !== undefined) throw badValue(network, missing, 'Required value');
  for (const [key, value] of Object.entries(config)) {
    if (!key.startsWith('user.')) validateKey(network, { key, value }, table);
  }
}

interface Setting {
  readonly key: string;
  readonly value: string;
}

function validateKey(network: string, { key, value }: Setting, { keys, other }: KeyTable): void {
  const check = Object.hasOwn(keys, key) ? keys[key] : other?.(key);
  if (!check) throw new AppError('invalid', `Invalid option for network "${network}" option "${key}"`);
  const complaint = value === '' ? undefined : check(value);
  if (complaint !== undefined) throw badValue(network, key, complaint);
}

export function badValue(network: string, key: string, complaint: string): AppError {
  return new AppError('invalid', `Invalid value for network "${network}" option "${key}": ${complaint}`);
}

export function isTrue(value: string | undefined, fallback: boolean): boolean {
  return value === undefined || value === '' ? fallback : /^(true|1|yes|on)$/i.test(value);
}

/** Parts of a list; an absent one has none. */
export function listItems(value: string | undefined): readonly string[] {
  return (value ?? '')
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
}
