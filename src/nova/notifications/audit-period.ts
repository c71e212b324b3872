// Periods of instance_usage_audit_period: what `exists` tells the usage of.

export type AuditUnit = 'hour' | 'day' | 'month' | 'year';

export interface AuditPeriod {
  readonly begin: Date;
  readonly end: Date;
}

const PATTERN = /^(hour|day|month|year)(?:@(\d{1,2}))?$/;
/** Smallest and largest offset: minutes of an hour, hours of a day, days of a month, months of a year. */
const OFFSETS = { hour: [0, 59], day: [0, 23], month: [1, 31], year: [1, 12] } as const;

/** `month`, `day@12` …; undefined when it is neither. */
export function parseAuditUnit(text: string): { readonly unit: AuditUnit; readonly offset: number } | undefined {
  const [, unit, given] = PATTERN.exec(text) ?? [];
  if (unit === undefined) return undefined;
  const [least, most] = OFFSETS[unit as AuditUnit];
  const offset = given === undefined ? least : Number(given);
  return offset < least || offset > most ? undefined : { unit: unit as AuditUnit, offset };
}

/** From the end of the last whole unit until now, in UTC. */
export function currentPeriod(text: string, now: Date): AuditPeriod {
  const { unit, offset } = parseAuditUnit(text) ?? { unit: 'month', offset: 1 };
  const boundary = boundaryIn(unit, offset, now, 0);
  return { begin: boundary <= now ? boundary : boundaryIn(unit, offset, now, -1), end: now };
}

/** The last one that is over. */
export function lastPeriod(text: string, now: Date): AuditPeriod {
  const { unit, offset } = parseAuditUnit(text) ?? { unit: 'month', offset: 1 };
  const isPast = boundaryIn(unit, offset, now, 0) < now;
  const [begin, end] = isPast ? [-1, 0] : [-2, -1];
  return { begin: boundaryIn(unit, offset, now, begin), end: boundaryIn(unit, offset, now, end) };
}

/** The boundary in the unit of `now`, or so many units later. */
function boundaryIn(unit: AuditUnit, offset: number, now: Date, later: number): Date {
  const year = now.getUTCFullYear();
  const month = now.getUTCMonth();
  const [day, hour] = [now.getUTCDate(), now.getUTCHours()];
  if (unit === 'hour') return new Date(Date.UTC(year, month, day, hour + later, offset));
  if (unit === 'day') return new Date(Date.UTC(year, month, day + later, offset));
  if (unit === 'month') return new Date(Date.UTC(year, month + later, offset));
  return new Date(Date.UTC(year + later, offset - 1, 1));
}

/** As Python prints a datetime without a zone. */
export function periodText(date: Date): string {
  const text = date.toISOString().replace('T', ' ').replace('Z', '000');
  return text.replace(/\.0+$/, '');
}
