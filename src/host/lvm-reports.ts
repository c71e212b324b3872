// What vgs and lvs report, as JSON with sizes in bytes.
import { AppError } from '#src/lib/errors.ts';

export interface VolumeGroup {
  readonly name: string;
  readonly sizeBytes: number;
  readonly freeBytes: number;
  /** Sizes of volumes are multiples of it. */
  readonly extentBytes: number;
  readonly tags: readonly string[];
  readonly devices: readonly string[];
}

export interface LogicalVolume {
  readonly name: string;
  readonly sizeBytes: number;
  readonly tags: readonly string[];
  readonly isThinPool: boolean;
  readonly isReadonly: boolean;
  readonly isActive: boolean;
  /** The thin pool that it lies in. */
  readonly pool: string | undefined;
  /** What it is a snapshot of. */
  readonly origin: string | undefined;
  /** Of its size; only known while it is active. */
  readonly usedPercent: number | undefined;
}

interface Log {
  readonly log_type: string;
  readonly log_message: string;
}

type Row = Readonly<Record<string, string | undefined>>;

interface Report {
  readonly report: readonly Readonly<Record<string, readonly Row[]>>[];
  readonly log?: readonly Log[];
}

function parsed(text: string): Report {
  try {
    return JSON.parse(text) as Report;
  } catch (cause) {
    throw new AppError('internal', `cannot read what LVM reports: ${text.slice(0, 200)}`, { cause });
  }
}

function rows(text: string, kind: 'vg' | 'lv'): readonly Row[] {
  return parsed(text).report.flatMap((part) => part[kind] ?? []);
}

/** What the command complains about. */
export function parseErrors(text: string): readonly string[] {
  if (text.trim() === '') return [];
  return (parsed(text).log ?? []).filter((line) => line.log_type === 'error').map((line) => line.log_message);
}

function list(text: string | undefined): readonly string[] {
  return (text ?? '').split(',').filter((part) => part !== '');
}

function optional(text: string | undefined): string | undefined {
  return text === undefined || text === '' ? undefined : text;
}

/** One row for each of its devices; undefined without any. */
export function parseGroups(text: string): VolumeGroup | undefined {
  const all = rows(text, 'vg');
  const [first] = all;
  if (!first) return undefined;
  return {
    name: first['vg_name'] ?? '',
    sizeBytes: Number(first['vg_size']),
    freeBytes: Number(first['vg_free']),
    extentBytes: Number(first['vg_extent_size']),
    tags: list(first['vg_tags']),
    devices: all.flatMap((row) => optional(row['pv_name']) ?? []),
  };
}

/** The characters of lv_attr: type, permissions, allocation, fixed minor, state … */
export function parseVolumes(text: string): readonly LogicalVolume[] {
  return rows(text, 'lv').map((row) => {
    const [type = '', permissions = '', , , state = ''] = row['lv_attr'] ?? '';
    const percent = optional(row['data_percent']);
    return {
      name: row['lv_name'] ?? '',
      sizeBytes: Number(row['lv_size']),
      tags: list(row['lv_tags']),
      isThinPool: type === 't',
      isReadonly: permissions.toLowerCase() === 'r',
      isActive: state === 'a',
      pool: optional(row['pool_lv']),
      origin: optional(row['origin']),
      usedPercent: percent === undefined ? undefined : Number(percent),
    };
  });
}
