// Roots on volumes: what lies on the device decides how it becomes a root, and nothing but its bytes is believed.
import { Readable } from 'node:stream';
import type { StringMap } from '#src/client/wire.ts';
import type { Host } from '#src/host/host.ts';
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import type { GuestVolume } from '../driver.ts';
import { inspectImage } from './image-content.ts';

/** Of the root disk: the device that has the root, of which the pool holds the metadata alone. */
const DEVICE = 'lighter.block';
/** Of the same, while it is made: the engine puts the image onto a new file system there. */
const FILL = 'lighter.block.fill';
/** As much as images are told by. */
const HEAD_BYTES = 1024 * 1024;

/** `archive`: an image, to be unpacked; `disk`: used as it is. AppError 'invalid' for anything else. */
export async function inspectVolume(host: Host, path: string, signal: AbortSignal): Promise<'archive' | 'disk'> {
  const head = await readHead(host, path, signal);
  if (head.every((byte) => byte === 0))
    throw new AppError('invalid', 'the volume is empty: nothing is there to boot from');
  const { kind, content } = await inspectImage(Readable.from([head]), host, signal).catch((error: unknown) => {
    throw refusal(error);
  });
  content.destroy();
  if (kind === 'qcow2') throw new AppError('invalid', 'the volume holds a qcow2 file, not the disk that is in it');
  return kind === 'raw' ? 'disk' : 'archive';
}

async function readHead(host: Host, path: string, signal: AbortSignal): Promise<Buffer> {
  const reading = host.start(['head', `--bytes=${HEAD_BYTES}`, '--', path], { signal });
  reading.stdin.end();
  const parts: Buffer[] = [];
  for await (const chunk of reading.stdout) parts.push(Buffer.from(chunk as Buffer));
  await reading.done;
  return Buffer.concat(parts);
}

function refusal(error: unknown): unknown {
  if (kindOf(error) !== 'invalid') return error;
  const reason = messageOf(error).replace(/^the image is /, 'what the volume holds is ');
  return new AppError('invalid', reason, { cause: error });
}

/** The root disk of an instance, with its root on a device, whose size is its own. */
export function onVolume({ size: _size, ...rootDisk }: StringMap, path: string, fill: boolean): StringMap {
  return { ...rootDisk, [DEVICE]: path, ...(fill && { [FILL]: 'true' }) };
}

/** The same root disk where `present` has its root. */
export function keepVolume(rootDisk: StringMap, present: StringMap | undefined): StringMap {
  const path = present?.[DEVICE];
  return path === undefined ? rootDisk : onVolume(rootDisk, path, false);
}

export function isOnVolume(rootDisk: StringMap | undefined): boolean {
  return rootDisk?.[DEVICE] !== undefined;
}

export function rootAmong(volumes: readonly GuestVolume[]): GuestVolume | undefined {
  return volumes.find(({ isRoot }) => isRoot);
}
