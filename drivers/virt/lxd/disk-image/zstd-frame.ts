// Where a zstd frame ends (RFC 8878): zlib takes no other bytes behind it, and a sector of qcow2 has some.

const DICTIONARY_BYTES = [0, 1, 2, 4] as const;
const SIZE_BYTES = [0, 2, 4, 8] as const;
const RUN_LENGTH = 1;

/** RangeError when the frame is cut off. */
export function zstdFrame(packed: Buffer): Buffer {
  const descriptor = packed.readUInt8(4);
  const isSingle = (descriptor & 0x20) !== 0;
  const sizeBytes = SIZE_BYTES[(descriptor >> 6) as 0 | 1 | 2 | 3] || (isSingle ? 1 : 0);
  let at = 5 + (isSingle ? 0 : 1) + DICTIONARY_BYTES[(descriptor & 3) as 0 | 1 | 2 | 3] + sizeBytes;
  for (let isLast = false; !isLast; ) {
    const block = packed.readUIntLE(at, 3);
    isLast = (block & 1) === 1;
    at += 3 + (((block >> 1) & 3) === RUN_LENGTH ? 1 : block >> 3);
  }
  return packed.subarray(0, at + ((descriptor & 4) !== 0 ? 4 : 0));
}
