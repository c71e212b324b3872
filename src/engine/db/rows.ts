// Columns to values: SQLite knows text and integers, the engine booleans, maps and lists.
import type { SqlRow, SqlValue } from './sqlite.ts';

export function text(row: SqlRow, column: string): string {
  return String(row[column] ?? '');
}

export function integer(row: SqlRow, column: string): number {
  return Number(row[column] ?? 0);
}

export function flag(row: SqlRow, column: string): boolean {
  return row[column] === 1;
}

/** A column that we wrote with JSON.stringify; its shape is ours. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- the reader of the column names its type
export function json<T>(row: SqlRow, column: string): T {
  return JSON.parse(text(row, column)) as T;
}

export function toSql(value: unknown): SqlValue {
  if (typeof value === 'boolean') return value ? 1 : 0;
  return typeof value === 'string' || typeof value === 'number' ? value : JSON.stringify(value);
}
