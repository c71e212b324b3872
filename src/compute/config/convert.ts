// Texts of a configuration file to values, by oslo.config's rules.
import { AppError } from '#src/lib/errors.ts';
import type { OptionSpec, OptionType, OptionValue } from './schema.ts';

const TRUE = new Set(['true', '1', 'on', 'yes']);
const FALSE = new Set(['false', '0', 'off', 'no']);

/** Throws AppError 'invalid' that says what was expected; the text itself is not in the message. */
export function convert(texts: readonly string[], spec: OptionSpec): OptionValue {
  if (spec.type === 'array') return spec.multi ? texts.flatMap(toItem(spec)) : toList(texts.at(-1) ?? '', spec);
  const text = texts.at(-1) ?? '';
  if (text.trim() === '' && spec.type !== 'string' && spec.nullable) return null;
  return toScalar(text, spec.type);
}

function toItem(spec: OptionSpec): (text: string) => (string | number)[] {
  return (text) => (text.trim() === '' ? [] : [toScalar(text.trim(), spec.itemType) as string | number]);
}

function toList(text: string, spec: OptionSpec): (string | number)[] {
  const trimmed = text.trim().replace(/,+$/, '');
  if (trimmed === '') return [];
  return trimmed.split(',').map((item) => toScalar(item.trim(), spec.itemType) as string | number);
}

function toScalar(text: string, type: OptionType): string | number | boolean {
  switch (type) {
    case 'boolean':
      return toBoolean(text.trim().toLowerCase());
    case 'integer':
      if (!/^[+-]?\d+$/.test(text.trim())) throw new AppError('invalid', 'must be a whole number');
      return Number(text.trim());
    case 'number':
      if (text.trim() === '' || !Number.isFinite(Number(text))) throw new AppError('invalid', 'must be a number');
      return Number(text);
    case 'string':
    case 'array':
      return text;
  }
}

function toBoolean(text: string): boolean {
  if (TRUE.has(text)) return true;
  if (FALSE.has(text)) return false;
  throw new AppError('invalid', 'must be true or false');
}
