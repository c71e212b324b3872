// limits.read, limits.write and limits.max of a disk, on the block devices that its data lies on.
import { basename } from 'node:path';
import { realpath, stat } from 'node:fs/promises';
import type { RuntimeThrottle } from '../../runtime/driver.ts';
import type { Host } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';
import { type OptionChecks, textOf } from '../common/options.ts';

type Config = Readonly<Record<string, string>>;
type Rate = { readonly bytes: number } | { readonly operations: number };

const UNITS: Readonly<Record<string, number>> = { '': 1, B: 1 };
const PREFIXES = ['k', 'M', 'G', 'T', 'P', 'E'];

/** `10MB` or `30iops`. */
function parseRate(value: string): Rate {
  const operations = /^(\d+)iops$/.exec(value)?.[1];
  if (operations !== undefined) return { operations: Number(operations) };
  const match = /^(\d+)(?:(B|)|([kMGTPE])B|([KMGTPE])iB)$/.exec(value);
  if (!match) throw new AppError('invalid', `Invalid value: ${value}`);
  const [, digits, plain, decimal, binary] = match;
  if (plain !== undefined) return { bytes: Number(digits) * (UNITS[plain] ?? 1) };
  const power = PREFIXES.indexOf((decimal ?? binary ?? '').replace('K', 'k')) + 1;
  return { bytes: Number(digits) * (decimal === undefined ? 1024 : 1000) ** power };
}

const rate = (value: string): void => void parseRate(value);
export const THROTTLE_CHECKS: OptionChecks = { 'limits.read': rate, 'limits.write': rate, 'limits.max': rate };
export const THROTTLE_OPTIONS = Object.keys(THROTTLE_CHECKS);

function throttleOf(config: Config): RuntimeThrottle | undefined {
  const max = textOf(config, 'limits.max');
  const read = max === '' ? textOf(config, 'limits.read') : max;
  const write = max === '' ? textOf(config, 'limits.write') : max;
  if (read === '' && write === '') return undefined;
  return {
    ...(read !== '' && named(parseRate(read), 'readBytes', 'readOperations')),
    ...(write !== '' && named(parseRate(write), 'writeBytes', 'writeOperations')),
  };
}

function named(limit: Rate, bytes: keyof RuntimeThrottle, operations: keyof RuntimeThrottle): RuntimeThrottle {
  return 'bytes' in limit ? { [bytes]: limit.bytes } : { [operations]: limit.operations };
}

/** {} when the disk has no limits. AppError 'unsupported' when its data is on no block device that can be told. */
export async function diskThrottles(
  host: Host,
  config: Config,
  path: string,
): Promise<Readonly<Record<string, RuntimeThrottle>>> {
  const throttle = throttleOf(config);
  if (!throttle) return {};
  const devices = await blockDevicesOf(host, path);
  if (devices.length === 0) throw new AppError('unsupported', `Invalid block device for path "${path}"`);
  return Object.fromEntries(devices.map((device) => [device, throttle]));
}

async function blockDevicesOf(host: Host, path: string): Promise<readonly string[]> {
  const { dev, rdev, mode } = await stat(path);
  const isBlock = (mode & 0o170000) === 0o060000;
  const number = isBlock ? rdev : dev;
  if (majorOf(number) !== 0) return [await wholeDisk(`${majorOf(number)}:${minorOf(number)}`)];
  return Promise.all((await devicesBehind(host, path)).map(async (device) => wholeDisk(await numberOf(device))));
}

function majorOf(dev: number): number {
  return Math.floor(dev / 256) % 4096;
}

function minorOf(dev: number): number {
  return (dev % 256) + Math.floor(dev / 2 ** 20) * 256;
}

async function numberOf(device: string): Promise<string> {
  const { rdev } = await stat(device);
  return `${majorOf(rdev)}:${minorOf(rdev)}`;
}

/** The kernel limits disks, not partitions. */
async function wholeDisk(number: string): Promise<string> {
  const directory = await realpath(`/sys/dev/block/${number}`).catch(() => undefined);
  if (directory === undefined) return number;
  const partition = await stat(`${directory}/partition`).catch(() => undefined);
  if (!partition) return number;
  const parent = directory.slice(0, -basename(directory).length - 1);
  const { rdev } = await stat(`/dev/${basename(parent)}`);
  return `${majorOf(rdev)}:${minorOf(rdev)}`;
}

/** File systems without a device number of their own: btrfs and zfs say on which disks they are. */
async function devicesBehind(host: Host, path: string): Promise<readonly string[]> {
  const { stdout } = await host.run(['findmnt', '-n', '-o', 'FSTYPE,SOURCE', '--target', path]);
  const [type = '', source = ''] = stdout.trim().split(/\s+/);
  if (type === 'btrfs') {
    const shown = await host.run(['btrfs', 'filesystem', 'show', path]);
    return [...shown.stdout.matchAll(/ path (\/\S+)/g)].map(([, device = '']) => device);
  }
  if (type.includes('zfs')) {
    const status = await host.run(['zpool', 'status', '-P', '-L', source.split('/')[0] ?? '']);
    return devicesOf(status.stdout);
  }
  return source.startsWith('/dev/') ? [source.replace(/\[.*$/, '')] : [];
}

function devicesOf(status: string): readonly string[] {
  return [...status.matchAll(/^\s+(\/dev\/\S+)\s/gm)].map(([, device = '']) => device);
}
