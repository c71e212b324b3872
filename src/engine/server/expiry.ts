// Spans of time as LXD writes them in its configuration: `1H`, `2w 3d`; `m` is a month, `M` a minute.
import { AppError } from '#src/lib/errors.ts';

const ADD: Readonly<Record<string, (date: Date, count: number) => void>> = {
  S: (date, count) => date.setTime(date.getTime() + count * 1000),
  M: (date, count) => date.setTime(date.getTime() + count * 60_000),
  H: (date, count) => date.setTime(date.getTime() + count * 3_600_000),
  d: (date, count) => date.setUTCDate(date.getUTCDate() + count),
  w: (date, count) => date.setUTCDate(date.getUTCDate() + 7 * count),
  m: (date, count) => date.setUTCMonth(date.getUTCMonth() + count),
  y: (date, count) => date.setUTCFullYear(date.getUTCFullYear() + count),
};

/** The end of the span that begins at `start`. AppError 'invalid' for what is no span, or ends after the last of all dates. */
export function endOf(span: string, start: Date): Date {
  const end = new Date(start);
  for (const part of span.trim().split(/\s+/u)) {
    const { count, unit = '' } = /^(?<count>\d+)(?<unit>[SMHdwmy])$/u.exec(part)?.groups ?? {};
    const add = ADD[unit];
    if (!add) throw new AppError('invalid', 'Invalid expiry expression');
    add(end, Number(count));
  }
  if (Number.isNaN(end.getTime())) throw new AppError('invalid', 'Invalid expiry expression');
  return end;
}
