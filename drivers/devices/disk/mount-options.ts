// raw.mount.options of a disk: what the kernel takes as flags of a mount, as flags of a file system, and what a file system takes.
import type { MountFlag } from '#src/host/mounts.ts';
import { AppError } from '#src/lib/errors.ts';
import { textOf } from '../common/options.ts';

export interface RawMountOptions {
  /** Also for what is only bound. */
  readonly ofMount: readonly MountFlag[];
  /** For block devices, whose file system is mounted. */
  readonly ofFileSystem: readonly MountFlag[];
  /** The file system's own options. */
  readonly data: string;
}

const OF_MOUNT: Readonly<Record<string, readonly MountFlag[]>> = {
  ro: ['readonly'],
  nosuid: ['nosuid'],
  nodev: ['nodev'],
  noexec: ['noexec'],
  noatime: ['noatime'],
  nodiratime: ['nodiratime'],
  relatime: ['relatime'],
  strictatime: ['strictatime'],
};
/** What a mount is anyway. */
const USUAL = new Set([
  '',
  'defaults',
  'rw',
  'suid',
  'dev',
  'exec',
  'atime',
  'diratime',
  'norelatime',
  'async',
  'bind',
]);
const OF_FILE_SYSTEM: Readonly<Record<string, readonly MountFlag[]>> = { sync: ['sync'], dirsync: ['dirsync'] };

export function parseMountOptions(text: string): RawMountOptions {
  const options = text.split(',').filter((option) => !USUAL.has(option));
  const flags = (table: typeof OF_MOUNT) =>
    options.flatMap((option) => (Object.hasOwn(table, option) ? (table[option] ?? []) : []));
  const others = options.filter((option) => !Object.hasOwn(OF_MOUNT, option) && !Object.hasOwn(OF_FILE_SYSTEM, option));
  return { ofMount: flags(OF_MOUNT), ofFileSystem: flags(OF_FILE_SYSTEM), data: others.join(',') };
}

/** AppError 'invalid' for options that a bind mount has not: the kernel would ignore them. */
export function checkBindOptions(config: Readonly<Record<string, string>>): void {
  const { ofFileSystem, data } = parseMountOptions(textOf(config, 'raw.mount.options'));
  const [unfit] = [...ofFileSystem, ...(data === '' ? [] : data.split(','))];
  if (unfit !== undefined) throw new AppError('invalid', `Mount option "${unfit}" is not supported for the source`);
}
