// Rates as LXD writes them: "10Mbit", "100kbit", "1Gibit"; a plain number is bits.
import { AppError } from '#src/lib/errors.ts';

const DECIMAL = ['kbit', 'Mbit', 'Gbit', 'Tbit', 'Pbit', 'Ebit'];
const BINARY = ['Kibit', 'Mibit', 'Gibit', 'Tibit', 'Pibit', 'Eibit'];
const UNITS: Readonly<Record<string, number>> = Object.fromEntries([
  ['', 1],
  ['bit', 1],
  ...DECIMAL.map((unit, index) => [unit, 1000 ** (index + 1)] as const),
  ...BINARY.map((unit, index) => [unit, 1024 ** (index + 1)] as const),
]);

/** Bits per second. AppError 'invalid' with LXD's text. */
export function parseBitRate(text: string): number {
  const [, digits = '', unit = ''] = /^(\d+)([A-Za-z]*)$/.exec(text.trim()) ?? [];
  const factor = UNITS[unit];
  const rate = Number(digits) * (factor ?? 0);
  if (digits === '' || rate < 8 || !Number.isSafeInteger(rate)) throw new AppError('invalid', `Invalid value: ${text}`);
  return rate;
}
