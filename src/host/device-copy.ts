// All of one block device, or file, to another one: nobody else may have them meanwhile.
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { AppError } from '#src/lib/errors.ts';
import { deviceStatus } from './served/device.ts';

const CHUNK_BYTES = 4 * 2 ** 20;
/** What waits in memory to be written is bounded: at its end a copy is not to wait for all of it. */
const FLUSH_BYTES = 256 * 2 ** 20;

export interface CopyOptions {
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: { readonly copiedBytes: number; readonly totalBytes: number }) => void;
}

/**
 * What is beyond the end of the first stays as it is on the second. Zeros are not written where there are zeros already, so that a thin
 * device stays thin. AppError 'conflict' when one of them is in use (mounted, or opened for somebody alone), 'invalid' when the second
 * is too small. The second one holds no whole copy after a failure.
 */
export async function copyDevice(from: string, to: string, { signal, onProgress }: CopyOptions): Promise<void> {
  await using source = await openAlone(from, constants.O_RDONLY);
  await using target = await openAlone(to, constants.O_RDWR);
  const [{ sizeBytes: totalBytes }, { sizeBytes: room }] = await Promise.all([deviceStatus(from), deviceStatus(to)]);
  if (room < totalBytes) throw new AppError('invalid', `the copy has ${room} bytes of room for ${totalBytes}`);
  const buffers = { data: Buffer.alloc(CHUNK_BYTES), there: Buffer.alloc(CHUNK_BYTES) };
  let unflushed = 0;
  for (let position = 0; position < totalBytes; position += CHUNK_BYTES) {
    signal.throwIfAborted();
    const bytes = Math.min(CHUNK_BYTES, totalBytes - position);
    unflushed += await copyChunk({ source, target }, { position, bytes }, buffers);
    if (unflushed >= FLUSH_BYTES) {
      await target.datasync();
      unflushed = 0;
    }
    onProgress?.({ copiedBytes: position + bytes, totalBytes });
  }
  await target.sync();
}

/** Of a block device the kernel gives it to one at a time, and to none while it is mounted; of a file this changes nothing. */
async function openAlone(path: string, flags: number): Promise<FileHandle> {
  return open(path, flags | constants.O_EXCL).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'EBUSY') throw cause;
    throw new AppError('conflict', `${path} is in use`, { cause });
  });
}

const ZEROS = Buffer.alloc(CHUNK_BYTES);

interface Files {
  readonly source: FileHandle;
  readonly target: FileHandle;
}

interface Chunk {
  readonly position: number;
  readonly bytes: number;
}

/** Returns how much was written. */
async function copyChunk(
  { source, target }: Files,
  chunk: Chunk,
  { data, there }: { readonly data: Buffer; readonly there: Buffer },
): Promise<number> {
  const { position, bytes } = chunk;
  const read = await readWhole(source, data, chunk);
  if (read.equals(ZEROS.subarray(0, bytes)) && (await readWhole(target, there, chunk)).equals(read)) return 0;
  for (let done = 0; done < bytes; ) {
    const { bytesWritten } = await target.write(read, done, bytes - done, position + done);
    if (bytesWritten === 0) throw new AppError('internal', 'the device of a copy takes no more');
    done += bytesWritten;
  }
  return bytes;
}

async function readWhole(file: FileHandle, buffer: Buffer, { position, bytes }: Chunk): Promise<Buffer> {
  for (let done = 0; done < bytes; ) {
    const { bytesRead } = await file.read(buffer, done, bytes - done, position + done);
    if (bytesRead === 0) throw new AppError('internal', 'a device ends before its end');
    done += bytesRead;
  }
  return buffer.subarray(0, bytes);
}
