// Medians, rows, and a table for people.
import { readFileSync } from 'node:fs';

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

export interface Row {
  readonly what: string;
  readonly measured: string;
  readonly target: string;
  readonly met: boolean;
}

export function atMost(what: string, value: number, limit: number, unit: string): Row {
  const digits = unit === 's' ? 3 : unit === '×' ? 2 : 1;
  return {
    what,
    measured: `${value.toFixed(digits)} ${unit}`,
    target: `≤ ${limit.toFixed(limit < 1 ? 3 : 0)} ${unit}`,
    met: value <= limit,
  };
}

export function printTable(rows: readonly Row[]): void {
  const cells = [
    ['what', 'measured', 'target', ''],
    ...rows.map(({ what, measured, target, met }) => [what, measured, target, met ? 'met' : 'MISSED']),
  ];
  const widths = [0, 1, 2, 3].map((column) => Math.max(...cells.map((row) => (row[column] ?? '').length)));
  for (const row of cells)
    console.log(`| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`);
}

export async function secondsOf(work: () => Promise<unknown>): Promise<number> {
  const before = performance.now();
  await work();
  return (performance.now() - before) / 1000;
}

/** Resident memory of a process in MiB. */
export function residentMib(pid: number): number {
  const line = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(line?.[1]) / 1024;
}
