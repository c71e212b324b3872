// The Range header: one range of bytes, as clients that continue a download send it.
import type { ByteRange } from '#src/engine/instances/files.ts';

/** 'all': there is none, or one that we do not serve; 'none': nothing of it is in the file. */
export function byteRange(header: string | undefined, sizeBytes: number): ByteRange | 'all' | 'none' {
  const [, first = '', last = ''] = /^bytes=(\d*)-(\d*)$/.exec(header ?? '') ?? [];
  if (first === '' && last === '') return 'all';
  const { start, end } = bounds(first, last, sizeBytes);
  return start > end ? 'none' : { start, end };
}

/** "-N" are the last N bytes, "N-" is all from there. */
function bounds(first: string, last: string, sizeBytes: number): ByteRange {
  if (first === '') return { start: Math.max(sizeBytes - Number(last), 0), end: sizeBytes - 1 };
  return { start: Number(first), end: last === '' ? sizeBytes - 1 : Math.min(Number(last), sizeBytes - 1) };
}
