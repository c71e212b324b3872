// Names by pattern, Go's dates, schedules and expiry of snapshots.
import { describe, expect, it } from 'vitest';
import { formatGoDate } from '#src/engine/snapshots/go-date.ts';
import { nextSnapshotName, validateSnapshotName } from '#src/engine/snapshots/names.ts';
import { expiryOf, isDue, isDueAtStart, isExpired } from '#src/engine/snapshots/schedule.ts';

const now = new Date(2026, 10, 5, 9, 7, 3);

describe('names of snapshots', () => {
  it.each([
    ['', [], 'snap0'],
    ['', ['snap0', 'snap7', 'other', 'snapx'], 'snap8'],
    ['pre-%d-post', ['pre-3-post', 'pre-9'], 'pre-4-post'],
    ['fixed', [], 'fixed'],
    ['fixed', ['fixed'], 'fixed-0'],
    ['fixed', ['fixed', 'fixed-4'], 'fixed-5'],
    ["{{ creation_date|date:'2006-01-02_15-04-05' }}", [], '2026-11-05_09-07-03'],
    ["d{{ creation_date|date:'20060102' }}-%d", ['d20261105-0'], 'd20261105-1'],
  ])('makes of %j beside %j the name %j', (pattern, taken, name) => {
    expect(nextSnapshotName({ pattern, taken, now })).toBe(name);
  });

  it('refuses two numbers in one pattern, and what is no name', () => {
    expect(() => nextSnapshotName({ pattern: '%d-%d', taken: [], now })).toThrow('only once');
    expect(() => validateSnapshotName('a/b')).toThrow('Invalid snapshot name: Cannot contain "/"');
    for (const name of ['', '.', '..', 'a b', 'a\n', 'a@b']) {
      expect(() => validateSnapshotName(name)).toThrow('Invalid snapshot name');
    }
    expect(() => validateSnapshotName('c-d_1.2')).not.toThrow();
  });

  it.each([
    ['Mon Jan _2 15:04:05 2006', 'Thu Nov  5 09:07:03 2026'],
    ['Monday, 2 January 06 3:4:5 PM', 'Thursday, 5 November 26 9:7:3 AM'],
    ['1/2', '11/5'],
  ])('knows the layout %j', (layout, text) => {
    expect(formatGoDate(now, layout)).toBe(text);
  });
});

describe('schedules', () => {
  it.each([
    ['7 9 * * *', true],
    ['8 9 * * *', false],
    ['*/7 9,10 * * *', true],
    ['@hourly', false],
    ['@startup, 7 8,9 * * *', true],
    ['@startup', false],
    ['7 9 * * *, @never', false],
    ['@daily,@hourly', false],
  ])('asks %j at 09:07', (schedule, due) => {
    expect(isDue(schedule, now)).toBe(due);
  });

  it('knows the aliases', () => {
    const at = (month: number, day: number, hour: number, minute: number) =>
      new Date(2026, month, day, hour, minute, 30);

    expect(isDue('@hourly', at(3, 7, 5, 0))).toBe(true);
    expect(isDue('@daily', at(3, 7, 0, 0))).toBe(true);
    expect(isDue('@weekly', at(10, 8, 0, 0))).toBe(true); // a Sunday
    expect(isDue('@monthly', at(3, 1, 0, 0))).toBe(true);
    expect(isDue('@yearly', at(0, 1, 0, 0))).toBe(true);
    expect(isDue('@yearly', at(1, 1, 0, 0))).toBe(false);
    expect(isDueAtStart('@startup, @daily')).toBe(true);
    expect(isDueAtStart('@daily')).toBe(false);
  });

  it('counts expiry from the time of the snapshot', () => {
    const start = new Date('2026-01-31T10:00:00Z');

    expect(expiryOf('', start)).toBe('0001-01-01T00:00:00Z');
    expect(expiryOf('1d 2H 3M', start)).toBe('2026-02-01T12:03:00.000Z');
    expect(isExpired('0001-01-01T00:00:00Z', start)).toBe(false);
    expect(isExpired('2026-01-31T10:00:00Z', start)).toBe(true);
    expect(isExpired('2026-01-31T10:00:01Z', start)).toBe(false);
  });
});
