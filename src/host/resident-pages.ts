// What start-up touched and steady work does not need is not kept resident. Two thirds of Node's own file are code and tables
// that run once: parsing, compiling, loading.
import { readFile } from 'node:fs/promises';
import koffi from 'koffi';

const MADV_DONTNEED = 4;

const libc = koffi.load('libc.so.6');
const madvise = libc.func('int madvise(uintptr_t address, size_t bytes, int advice)');
const mallocTrim = libc.func('int malloc_trim(size_t keep)');

export interface Mapping {
  readonly start: bigint;
  readonly bytes: bigint;
}

/**
 * The mappings in a `/proc/PID/smaps` that hold nothing but the unchanged content of `file`: they can be dropped at any time and
 * come back from the file, a page at a time, when they are used. A mapping with pages of its own (relocated tables) is not one.
 */
export function cleanMappings(smaps: string, file: string): readonly Mapping[] {
  const clean: Mapping[] = [];
  for (const part of smaps.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/mu)) {
    const header = /^(?<start>[0-9a-f]+)-(?<end>[0-9a-f]+) r-[x-]p \S+ \S+ \d+\s+(?<path>.*)$/mu.exec(part)?.groups;
    if (header?.['path'] !== file || !/^Anonymous:\s+0 kB$/mu.test(part)) continue;
    const start = BigInt(`0x${header['start']}`);
    clean.push({ start, bytes: BigInt(`0x${header['end']}`) - start });
  }
  return clean;
}

/**
 * Gives back what is resident of Node's own file and what malloc holds free. Costs a few thousand soft page faults afterwards.
 * The kernel's refusal changes nothing but the number, so it is not an error.
 */
export async function releaseUnusedPages(): Promise<void> {
  for (const { start, bytes } of cleanMappings(await readFile('/proc/self/smaps', 'utf8'), process.execPath)) {
    madvise(start, bytes, MADV_DONTNEED);
  }
  mallocTrim(0);
}
