// Dates in Go's layouts (`2006-01-02 15:04`), which is what patterns of snapshot names are written in. Local time.

const two = (value: number): string => String(value).padStart(2, '0');
const MONTHS = 'January February March April May June July August September October November December'.split(' ');
const DAYS = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ');
const hour12 = (date: Date): number => date.getHours() % 12 || 12;
const name = (names: readonly string[], index: number): string => names[index] ?? '';

function offset(date: Date, separator: string): string {
  const minutes = -date.getTimezoneOffset();
  const size = Math.abs(minutes);
  return `${minutes < 0 ? '-' : '+'}${two(Math.floor(size / 60))}${separator}${two(size % 60)}`;
}

/** Longer pieces of a layout first. */
const PIECES: readonly (readonly [string, (date: Date) => string])[] = [
  ['January', (date) => name(MONTHS, date.getMonth())],
  ['Jan', (date) => name(MONTHS, date.getMonth()).slice(0, 3)],
  ['Monday', (date) => name(DAYS, date.getDay())],
  ['Mon', (date) => name(DAYS, date.getDay()).slice(0, 3)],
  ['MST', (date) => (date.getTimezoneOffset() === 0 ? 'UTC' : offset(date, ''))],
  ['2006', (date) => String(date.getFullYear()).padStart(4, '0')],
  ['-07:00', (date) => offset(date, ':')],
  ['-0700', (date) => offset(date, '')],
  ['Z07:00', (date) => (date.getTimezoneOffset() === 0 ? 'Z' : offset(date, ':'))],
  ['.000', (date) => `.${String(date.getMilliseconds()).padStart(3, '0')}`],
  ['01', (date) => two(date.getMonth() + 1)],
  ['02', (date) => two(date.getDate())],
  ['03', (date) => two(hour12(date))],
  ['04', (date) => two(date.getMinutes())],
  ['05', (date) => two(date.getSeconds())],
  ['06', (date) => two(date.getFullYear() % 100)],
  ['15', (date) => two(date.getHours())],
  ['PM', (date) => (date.getHours() < 12 ? 'AM' : 'PM')],
  ['pm', (date) => (date.getHours() < 12 ? 'am' : 'pm')],
  ['_2', (date) => String(date.getDate()).padStart(2, ' ')],
  ['1', (date) => String(date.getMonth() + 1)],
  ['2', (date) => String(date.getDate())],
  ['3', (date) => String(hour12(date))],
  ['4', (date) => String(date.getMinutes())],
  ['5', (date) => String(date.getSeconds())],
];

export function formatGoDate(date: Date, layout: string): string {
  let text = '';
  for (let at = 0; at < layout.length; ) {
    const piece = PIECES.find(([token]) => layout.startsWith(token, at));
    text += piece ? piece[1](date) : layout.charAt(at);
    at += piece ? piece[0].length : 1;
  }
  return text;
}
