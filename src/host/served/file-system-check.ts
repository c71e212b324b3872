// What is done to an ext file system before it is served: repaired as far as that needs nobody's decision, and grown to its device.
import { open } from 'node:fs/promises';
import { AppError } from '#src/lib/errors.ts';
import { CommandError } from '../command-error.ts';
import type { Host } from '../host.ts';
import type { ExposedDevice } from './device.ts';
import { DEVICE_INSIDE, jailed } from './jail.ts';
import type { RootPlace } from './locate-root.ts';

const LIMIT_MS = 30 * 60_000;
/** e2fsck's: repaired, and repaired so that a system which has it mounted would have to reboot. Nobody has. */
const REPAIRED = [0, 1, 2, 3];
const NEEDS_SOMEBODY = 4;
const IN_USE = 75;
/** The last block group of a file system may be missing for want of room: not worth a look at all of it at each start. */
const WORTH_GROWING_BYTES = 8 << 20;
const SUPERBLOCK = { at: 1024, bytes: 1024, magic: 0xef53 } as const;

export interface CheckedDevice {
  readonly source: string;
  readonly device: ExposedDevice;
  readonly place: RootPlace;
}

/** AppError 'invalid' when the file system cannot be used as it is. */
export async function prepareFileSystem(host: Host, checked: CheckedDevice, signal: AbortSignal): Promise<void> {
  await check(host, checked, ['-p'], signal);
  const { place, source } = checked;
  const bytes = await fileSystemBytes(source, place.start);
  if (place.sizeBytes - bytes < WORTH_GROWING_BYTES) return;
  await check(host, checked, ['-f', '-p'], signal);
  const size = `${Math.floor(place.sizeBytes / 1024)}K`;
  await tool(host, checked, ['resize2fs', inside(place), size], signal);
}

/** Makes one on all of a device, which its root of the container owns. */
export async function makeFileSystem(host: Host, checked: CheckedDevice, signal: AbortSignal): Promise<void> {
  const options = ['-q', '-F', '-E', 'root_owner=0:0', DEVICE_INSIDE];
  await tool(host, checked, ['mkfs.ext4', ...options], signal);
}

/** The name by which libext2fs finds a file system within a device. */
function inside({ start }: RootPlace): string {
  return start === 0 ? DEVICE_INSIDE : `${DEVICE_INSIDE}?offset=${start}`;
}

async function check(host: Host, checked: CheckedDevice, how: readonly string[], signal: AbortSignal): Promise<void> {
  await tool(host, checked, ['e2fsck', ...how, inside(checked.place)], signal);
}

async function tool(
  host: Host,
  { device, source }: CheckedDevice,
  program: readonly [string, ...string[]],
  signal: AbortSignal,
): Promise<void> {
  try {
    await host.run(jailed(device, program), { signal, timeoutMs: LIMIT_MS, okExitCodes: REPAIRED });
  } catch (cause) {
    signal.throwIfAborted();
    throw complaintOf(source, program[0], cause);
  }
}

function complaintOf(source: string, program: string, cause: unknown): AppError {
  const code = cause instanceof CommandError ? cause.exitCode : null;
  if (code === IN_USE) return new AppError('conflict', `"${source}" is in use`, { cause });
  if (code === NEEDS_SOMEBODY) {
    const text = `The file system on "${source}" has errors that e2fsck does not mend without being asked`;
    return new AppError('invalid', `${text}: run "e2fsck -f" on it`, { cause });
  }
  return new AppError('invalid', `The file system on "${source}" cannot be used: ${program} failed`, { cause });
}

/** By its superblock, which e2fsck has found in order. */
async function fileSystemBytes(source: string, start: number): Promise<number> {
  await using file = await open(source, 'r');
  const { buffer, bytesRead } = await file.read(
    Buffer.alloc(SUPERBLOCK.bytes),
    0,
    SUPERBLOCK.bytes,
    start + SUPERBLOCK.at,
  );
  if (bytesRead < SUPERBLOCK.bytes || buffer.readUInt16LE(56) !== SUPERBLOCK.magic)
    throw new AppError('invalid', `There is no ext file system on "${source}"`);
  const is64Bit = (buffer.readUInt32LE(96) & 0x80) !== 0;
  const blocks = buffer.readUInt32LE(4) + (is64Bit ? buffer.readUInt32LE(336) * 2 ** 32 : 0);
  return blocks * 2 ** (10 + Math.min(buffer.readUInt32LE(24), 6));
}
