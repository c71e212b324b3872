// Settings of volumes (lxd-engine-contract section 3.4): a volume's own are kept with its dataset, the pool has the defaults.
import { AppError } from '#src/lib/errors.ts';
import type { Zfs, ZfsProperties } from '#src/host/zfs.ts';
import type { StorageContext } from '../driver.ts';
import { parseSizeBytes } from '../common/size.ts';

type Config = Readonly<Record<string, string>>;

/** What LXD's documentation says of each. */
export const VOLUME_KEYS = {
  'zfs.blocksize': 'Size of the blocks of files, a power of 2 from 512 bytes to 16 MiB (recordsize)',
  'zfs.remove_snapshots': 'Whether later snapshots are removed when an older one is restored',
  'zfs.reserve_space': 'Whether the size of a volume is reserved for it in the pool',
  'zfs.use_refquota': 'Whether sizes limit the data of a volume without its snapshots (refquota instead of quota)',
} as const;

type Key = keyof typeof VOLUME_KEYS;

const KEYS = Object.keys(VOLUME_KEYS) as readonly Key[];
const TRUE = new Set(['true', '1', 'yes', 'on']);
const FALSE = new Set(['', 'false', '0', 'no', 'off']);
/** In this order: what is reserved must always fit into what is allowed. */
const LIMITS = ['quota', 'refquota', 'reservation', 'refreservation'] as const;

/** AppError 'invalid' for what a key cannot be. */
export function checkSetting(key: string, value: string): void {
  if (key !== 'zfs.blocksize') {
    if (!TRUE.has(value.toLowerCase()) && !FALSE.has(value.toLowerCase())) throw invalid(key, value);
    return;
  }
  if (value === '') return;
  const bytes = parseSizeBytes(value);
  if (bytes < 512 || bytes > 16 * 2 ** 20 || !Number.isInteger(Math.log2(bytes))) throw invalid(key, value);
}

/** AppError 'invalid' for what a pool cannot be. */
export function checkPoolConfig(config: Config): void {
  const { size = '', 'zfs.clone_copy': cloneCopy = '' } = config;
  if (size !== '') parseSizeBytes(size);
  const isKnown = cloneCopy === 'rebase' || TRUE.has(cloneCopy.toLowerCase()) || FALSE.has(cloneCopy.toLowerCase());
  if (!isKnown) throw invalid('zfs.clone_copy', cloneCopy);
}

/** Whether and how copies share what they have with their source. */
export function cloneCopy(config: Config): 'clone' | 'rebase' | 'full' {
  const value = config['zfs.clone_copy'] ?? '';
  if (value === 'rebase') return value;
  return value === '' || TRUE.has(value.toLowerCase()) ? 'clone' : 'full';
}

function invalid(key: string, value: string): AppError {
  return new AppError('invalid', `Invalid value "${value}" of ${key}`);
}

function property(key: Key): string {
  return `lighter:${key}`;
}

export class VolumeSettings {
  readonly #context: StorageContext;
  readonly #zfs: Zfs;

  constructor(context: StorageContext, zfs: Zfs) {
    this.#context = context;
    this.#zfs = zfs;
  }

  /** For a dataset that is to be made with settings and a size of its own. */
  newProperties(config: Config, sizeBytes: number | undefined): ZfsProperties {
    const own = KEYS.flatMap((key) => (config[key] ? [[property(key), config[key]] as const] : []));
    const limits = Object.entries(this.#limits(config, sizeBytes)).filter(([, value]) => value !== 'none');
    return { ...this.#recordSize(config), ...Object.fromEntries([...own, ...limits]) };
  }

  /** The volume's own. */
  async read(dataset: string, signal: AbortSignal): Promise<Config> {
    const found = await this.#zfs.get(dataset, KEYS.map(property), signal);
    return Object.fromEntries(
      KEYS.flatMap((key) => {
        const value = found[property(key)] ?? '-';
        return value === '-' ? [] : [[key, value] as const];
      }),
    );
  }

  /** Replaces the volume's own; limits follow when its size is set. */
  async write(dataset: string, config: Config, signal: AbortSignal): Promise<void> {
    const before = await this.read(dataset, signal);
    for (const key of KEYS) {
      const value = config[key] ?? '';
      if (value === (before[key] ?? '')) continue;
      if (value === '') await this.#zfs.inherit(dataset, property(key), signal);
      else await this.#zfs.set(dataset, { [property(key)]: value }, signal);
    }
    await this.#zfs.set(dataset, this.#recordSize(config), signal);
  }

  async limit(dataset: string, sizeBytes: number | undefined, signal: AbortSignal): Promise<void> {
    const names = [...LIMITS, ...KEYS.map(property)];
    const found = await this.#zfs.get(dataset, names, signal);
    const own = Object.fromEntries(KEYS.map((key) => [key, (found[property(key)] ?? '-').replace(/^-$/u, '')]));
    const wanted = this.#limits(own, sizeBytes);
    const differs = (name: (typeof LIMITS)[number]): boolean => {
      const now = found[name] ?? '-';
      return (/^(?:0|-|none)$/u.test(now) ? 'none' : now) !== wanted[name];
    };
    const changed = LIMITS.filter(differs);
    for (const name of changed.filter((one) => one.includes('reservation'))) {
      await this.#zfs.set(dataset, { [name]: 'none' }, signal);
    }
    for (const name of changed) {
      if (name.includes('reservation') && wanted[name] === 'none') continue;
      await this.#zfs.set(dataset, { [name]: wanted[name] }, signal);
    }
  }

  isOn(key: Exclude<Key, 'zfs.blocksize'>, config: Config): boolean {
    return TRUE.has(this.#value(key, config).toLowerCase());
  }

  #value(key: Key, config: Config): string {
    return config[key] || this.#context.config[`volume.${key}`] || '';
  }

  #recordSize(config: Config): ZfsProperties {
    const size = this.#value('zfs.blocksize', config);
    return size === '' ? {} : { recordsize: String(parseSizeBytes(size)) };
  }

  #limits(config: Config, sizeBytes: number | undefined): Readonly<Record<(typeof LIMITS)[number], string>> {
    const none = { quota: 'none', refquota: 'none', reservation: 'none', refreservation: 'none' };
    if (sizeBytes === undefined) return none;
    const prefix = this.isOn('zfs.use_refquota', config) ? 'ref' : '';
    const reserved = this.isOn('zfs.reserve_space', config) ? { [`${prefix}reservation`]: String(sizeBytes) } : {};
    return { ...none, [`${prefix}quota`]: String(sizeBytes), ...reserved };
  }
}
