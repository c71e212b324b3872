// Compressed and squashed images, made by the programs themselves.
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { gzipSync } from 'node:zlib';
import { run } from '../instances/daemon-support.ts';
import { METADATA } from './hostile-support.ts';

/** The twelve bytes of a size as no honest tar writes them. */
export const sizeFields = {
  /** A number that octal digits have no room for. */
  base256(value: bigint): Buffer {
    const digits = Buffer.from(value.toString(16).padStart(24, '0'), 'hex');
    digits.writeUInt8(digits.readUInt8(0) | 0x80, 0);
    return digits;
  },
  negative: Buffer.alloc(12, 0xff),
} as const;

async function through(program: string, options: readonly string[], input: Buffer): Promise<Buffer> {
  const child = spawn(program, options, { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.end(input);
  return await buffer(child.stdout);
}

export const gzipped = (input: Buffer): Buffer => gzipSync(input, { level: 1 });
export const bzip2 = (input: Buffer) => through('bzip2', ['-1c'], input);
export const xz = (input: Buffer, ...options: readonly string[]) => through('xz', ['-0c', ...options], input);
export const zstd = (input: Buffer, ...options: readonly string[]) => through('zstd', ['-1cq', ...options], input);

/** A unified image in a squashfs, with one file in its root. */
export async function squashfs(content: Buffer): Promise<Buffer> {
  const scratch = await mkdtemp(join(tmpdir(), 'hostile-squash-'));
  try {
    const tree = join(scratch, 'tree');
    await mkdir(join(tree, 'rootfs'), { recursive: true });
    await writeFile(join(tree, 'metadata.yaml'), METADATA);
    await writeFile(join(tree, 'rootfs/file'), content);
    await run('mksquashfs', [tree, join(scratch, 'image'), '-quiet', '-no-progress']);
    return await readFile(join(scratch, 'image'));
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
