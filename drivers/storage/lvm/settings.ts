// Keys of pools and volumes (lxd-engine-contract section 3.4), and what they mean for LVM's commands.
import { AppError } from '#src/lib/errors.ts';
import { parseSizeBytes } from '../common/size.ts';
import { FILE_SYSTEMS } from './file-systems.ts';

type Config = Readonly<Record<string, string>>;

export const POOL_KEYS = {
  source:
    'A volume group that exists, or a block device that becomes one; without it a file in the disks folder, on which one is made',
  size: 'Size of the file that the pool is made on; without it a fifth of what is free, 5 to 30 GiB; it can grow later',
  'lvm.vg_name': 'Name of the volume group (default: that of the pool)',
  'lvm.vg.force_reuse': 'Whether a volume group is taken that has something in it, or that another LXD uses',
  'lvm.use_thinpool': 'Whether volumes lie in a thin pool (default: true; only that is supported)',
  'lvm.thinpool_name': 'Name of the thin pool, which is made when the volume group has none (default: LXDThinPool)',
  'lvm.thinpool_metadata_size': 'Size of what the thin pool knows of its blocks (default: what LVM thinks right)',
  'volume.lvm.stripes': 'Over how many devices the thin pool is striped when it is made',
  'volume.lvm.stripes.size': 'Size of a stripe: at least 4096 bytes and a multiple of 512',
  'volume.block.filesystem': 'File system of new volumes and unpacked images: ext4 (default) or xfs',
  'volume.block.mount_options': 'Mount options of volumes that have none of their own (default: discard)',
} as const satisfies Config;

/** Of custom volumes. */
export const VOLUME_KEYS = ['block.filesystem', 'block.mount_options'] as const;

const TRUE = new Set(['true', '1', 'yes', 'on']);
const FALSE = new Set(['false', '0', 'no', 'off']);
const DEFAULT_THIN_POOL = 'LXDThinPool';
const DEFAULT_VOLUME_BYTES = 10 * 2 ** 30;
const DEFAULT_OPTIONS = 'discard';

function isOn(key: string, config: Config, byDefault: boolean): boolean {
  const value = (config[key] ?? '').toLowerCase();
  if (value === '') return byDefault;
  if (!TRUE.has(value) && !FALSE.has(value)) throw invalid(key, value);
  return TRUE.has(value);
}

function invalid(key: string, value: string): AppError {
  return new AppError('invalid', `Invalid value "${value}" of ${key}`);
}

/** AppError 'invalid' for what a volume's key cannot be. */
export function checkVolumeKey(key: (typeof VOLUME_KEYS)[number], value: string): void {
  if (value === '') return;
  if (key === 'block.filesystem' && !Object.hasOwn(FILE_SYSTEMS, value)) {
    throw new AppError('invalid', `File systems of volumes on lvm are ${Object.keys(FILE_SYSTEMS).join(' and ')}`);
  }
  // They are one argument of mount(8), and a tag of the volume.
  if (key === 'block.mount_options' && !/^[\w,.:=+/-]+$/u.test(value)) throw invalid(key, value);
}

/** AppError 'invalid' or 'unsupported' for what a pool cannot be. */
export function checkPoolConfig(config: Config): void {
  forcesReuse(config);
  requireThinPool(config);
  const name = thinPoolName(config);
  if (!/^[A-Za-z0-9_+.][A-Za-z0-9_+.-]*$/u.test(name)) throw invalid('lvm.thinpool_name', name);
  metadataBytes(config);
  stripeOptions(config);
  for (const key of ['size', 'volume.size']) sizeIn(config, key);
  for (const key of VOLUME_KEYS) checkVolumeKey(key, config[`volume.${key}`] ?? '');
}

function requireThinPool(config: Config): void {
  if (isOn('lvm.use_thinpool', config, true)) return;
  if ((config['lvm.thinpool_name'] ?? '') !== '') {
    throw new AppError('invalid', 'The key lvm.use_thinpool cannot be set to false when lvm.thinpool_name is set');
  }
  const text = 'Storage pools of lvm without a thin pool (lvm.use_thinpool=false) are not supported';
  throw new AppError('unsupported', text);
}

/** undefined: nothing is said. */
function sizeIn(config: Config, key: string): number | undefined {
  const text = config[key] ?? '';
  return text === '' ? undefined : parseSizeBytes(text);
}

export function forcesReuse(config: Config): boolean {
  return isOn('lvm.vg.force_reuse', config, false);
}

export function thinPoolName(config: Config): string {
  return config['lvm.thinpool_name'] || DEFAULT_THIN_POOL;
}

export function metadataBytes(config: Config): number | undefined {
  return sizeIn(config, 'lvm.thinpool_metadata_size') || undefined; // 0 is LXD's word for none
}

/** Options of lvcreate. */
export function stripeOptions(config: Config): readonly string[] {
  const { 'volume.lvm.stripes': count = '', 'volume.lvm.stripes.size': size = '' } = config;
  const bytes = sizeIn(config, 'volume.lvm.stripes.size');
  if (bytes !== undefined && (bytes < 4096 || bytes % 512 !== 0)) throw invalid('volume.lvm.stripes.size', size);
  if (count === '') return [];
  if (!/^[1-9]\d{0,2}$/u.test(count)) throw invalid('volume.lvm.stripes', count);
  return ['--stripes', count, ...(bytes === undefined ? [] : ['--stripesize', `${bytes}b`])];
}

/** Of volumes that are given none: LXD's. */
export function defaultBytes(config: Config): number {
  return sizeIn(config, 'volume.size') ?? DEFAULT_VOLUME_BYTES;
}

export function fileSystemOf(own: Config, pool: Config): string {
  return own['block.filesystem'] || pool['volume.block.filesystem'] || 'ext4';
}

export function mountOptions(own: string, pool: Config): string {
  return own || pool['volume.block.mount_options'] || DEFAULT_OPTIONS;
}
