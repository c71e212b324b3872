// Lists in the formats of lxc: table, compact, csv, json, yaml.
import { AppError } from '#src/lib/errors.ts';
import { formatYaml, withMapsInOrder } from './format.ts';

export const LIST_FORMATS = ['table', 'compact', 'csv', 'json', 'yaml'] as const;
export type ListFormat = (typeof LIST_FORMATS)[number];

export interface Column<T> {
  readonly header: string;
  readonly cell: (item: T) => string;
}

/** Columns by their one-letter shorthand. */
export type ColumnSet<T> = Readonly<Record<string, Column<T>>>;

export function checkFormat(format: string): ListFormat {
  const known = LIST_FORMATS.find((name) => name === format);
  if (known) return known;
  throw new AppError('invalid', `Invalid format "${format}"; one of ${LIST_FORMATS.join(', ')}`);
}

/** `ns46` or `n,s,user.comment:COMMENT`: letters of the set, and what `custom` makes of anything longer. */
export function chooseColumns<T>(
  text: string,
  set: ColumnSet<T>,
  custom?: (text: string) => Column<T>,
): readonly Column<T>[] {
  return text.split(',').flatMap((part) => {
    if (part === '')
      throw new AppError('invalid', `Empty column entry (redundant, leading or trailing command) in '${text}'`);
    if (custom && /[.:]/.test(part)) return [custom(part)];
    return Array.from(part, (letter) => {
      const column = set[letter];
      if (column) return column;
      throw new AppError('invalid', `Unknown column shorthand char '${letter}' in '${part}'`);
    });
  });
}

export function renderList<T>(items: readonly T[], columns: readonly Column<T>[], format: ListFormat): string {
  if (format === 'json') return `${JSON.stringify(withMapsInOrder(items))}\n`;
  if (format === 'yaml') return formatYaml(items);
  const rows = items.map((item) => columns.map(({ cell }) => cell(item)));
  if (format === 'csv') return rows.map((row) => `${row.map(csvCell).join(',')}\n`).join('');
  const headers = columns.map(({ header }) => header);
  return format === 'table' ? renderTable(headers, rows) : renderCompact(headers, rows);
}

function csvCell(text: string): string {
  return /[",\n\r]|^ /.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

type Row = readonly string[];

/** What an image or an instance says of itself must not steer the terminal of whoever looks at a table. */
function printable(text: string): string {
  // oxlint-disable-next-line no-control-regex -- these are what is looked for
  return text.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/gu, '\ufffd');
}

/** A row of cells of several lines each as rows of cells of one line. */
function linesOf(row: Row): readonly Row[] {
  const cells = row.map((cell) => printable(cell).split('\n'));
  const height = Math.max(1, ...cells.map((lines) => lines.length));
  return Array.from({ length: height }, (_line, index) => cells.map((lines) => lines[index] ?? ''));
}

function widthOf(text: string): number {
  return Array.from(text).length;
}

function widths(headers: Row, rows: readonly Row[]): readonly number[] {
  const lines = rows.flatMap(linesOf);
  return headers.map((header, index) => Math.max(widthOf(header), ...lines.map((line) => widthOf(line[index] ?? ''))));
}

function padRight(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - widthOf(text)));
}

function centre(text: string, width: number): string {
  return padRight(' '.repeat(Math.floor((width - widthOf(text)) / 2)) + text, width);
}

export function renderTable(headers: Row, rows: readonly Row[]): string {
  const size = widths(headers, rows);
  const rule = `+${size.map((width) => '-'.repeat(width + 2)).join('+')}+\n`;
  const line = (cells: Row): string => `|${cells.map((cell) => ` ${cell} `).join('|')}|\n`;
  const body = rows.map(
    (row) =>
      linesOf(row)
        .map((cells) => line(cells.map((cell, index) => padRight(cell, size[index] ?? 0))))
        .join('') + rule,
  );
  return rule + line(headers.map((header, index) => centre(header, size[index] ?? 0))) + rule + body.join('');
}

function renderCompact(headers: Row, rows: readonly Row[]): string {
  const size = widths(headers, rows);
  const line = (cells: Row): string => ` ${cells.map((cell) => ` ${cell} `).join('')} \n`;
  const head = line(headers.map((header, index) => centre(header, size[index] ?? 0)));
  const body = rows.flatMap(linesOf).map((cells) => line(cells.map((cell, index) => padRight(cell, size[index] ?? 0))));
  return head + body.join('');
}
