// The period that a usage notification is about.
import { expect, it } from 'vitest';
import { currentPeriod, parseAuditUnit, periodText } from '#src/nova/notifications/audit-period.ts';

const NOW = new Date('2026-03-05T07:08:09.010Z');

it.each([
  ['hour', '2026-03-05T07:00:00.000Z'],
  ['hour@30', '2026-03-05T06:30:00.000Z'],
  ['day', '2026-03-05T00:00:00.000Z'],
  ['day@7', '2026-03-05T07:00:00.000Z'],
  ['day@12', '2026-03-04T12:00:00.000Z'],
  ['month', '2026-03-01T00:00:00.000Z'],
  ['month@15', '2026-02-15T00:00:00.000Z'],
  ['year', '2026-01-01T00:00:00.000Z'],
  ['year@6', '2025-06-01T00:00:00.000Z'],
])('of %s began at %s', (text, begin) => {
  expect(currentPeriod(text, NOW)).toEqual({ begin: new Date(begin), end: NOW });
});

it('knows no other units, and no offset beyond the unit', () => {
  for (const text of ['', 'week', 'hour@60', 'day@24', 'month@0', 'month@32', 'year@13', 'month@']) {
    expect(parseAuditUnit(text)).toBeUndefined();
  }
});

it('is written as Python does', () => {
  expect(periodText(NOW)).toBe('2026-03-05 07:08:09.010000');
  expect(periodText(new Date('2026-03-01T00:00:00Z'))).toBe('2026-03-01 00:00:00');
});
