// Values as lxc prints them.
import { stringify } from 'yaml';

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** 815104 → 796.00KiB */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];
  let value = bytes;
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit += 1) value /= 1024;
  return unit === 0 ? `${bytes}B` : `${value.toFixed(2)}${units[unit]}`;
}

function two(value: number): string {
  return String(value).padStart(2, '0');
}

/** 2026/11/23 13:15 UTC; undefined for "never". */
export function formatTime(text: string): string | undefined {
  const time = new Date(text);
  if (Number.isNaN(time.getTime()) || time.getTime() <= 0) return undefined;
  const day = `${time.getUTCFullYear()}/${two(time.getUTCMonth() + 1)}/${two(time.getUTCDate())}`;
  return `${day} ${two(time.getUTCHours())}:${two(time.getUTCMinutes())} UTC`;
}

/** Nov 23, 2026 at 1:10pm (UTC) */
export function formatDate(text: string): string {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return '';
  const hours = time.getUTCHours();
  const clock = `${hours % 12 === 0 ? 12 : hours % 12}:${two(time.getUTCMinutes())}${hours < 12 ? 'am' : 'pm'}`;
  return `${MONTHS[time.getUTCMonth()]} ${time.getUTCDate()}, ${time.getUTCFullYear()} at ${clock} (UTC)`;
}

export function formatYaml(value: unknown): string {
  return stringify(withMapsInOrder(value), {
    lineWidth: 0,
    indentSeq: false,
    // Words such as "yes" and "on" are quoted: clients that read YAML 1.1 take them for something else. Times are plain.
    version: '1.1',
    customTags: (tags) => tags.filter((tag) => typeof tag === 'string' || tag.tag !== 'tag:yaml.org,2002:timestamp'),
    blockQuote: 'literal',
    aliasDuplicateObjects: false,
  });
}

/** Maps, where all else is an object with its fields in the order of the API. */
const MAPS = /^(?:config|devices|expanded_config|expanded_devices|properties|network|disk|resources|environment)$/;

/** Configuration comes in any order, and is shown by the alphabet. */
export function withMapsInOrder(value: unknown, isMap = false): unknown {
  if (Array.isArray(value)) return value.map((item) => withMapsInOrder(item));
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(
    ([key, item]) => [key, withMapsInOrder(item, MAPS.test(key) || (isMap && typeof item === 'object'))] as const,
  );
  return isMap ? sorted(Object.fromEntries(entries)) : Object.fromEntries(entries);
}

/** Maps of configuration come in any order. */
export function sorted<T>(map: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** c2 before c10. */
export function byNaturalName(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}
