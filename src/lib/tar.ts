// Tar archives, as little as images need: the names at the head of one, and a small one written.

const BLOCK = 512;

export interface TarFile {
  readonly name: string;
  readonly content: string;
}

/** A ustar archive of regular files; the same files give the same bytes. */
export function writeTar(files: readonly TarFile[]): Buffer {
  return Buffer.concat([tarMembers(files), Buffer.alloc(2 * BLOCK)]);
}

/** The same without an end: what follows it is more of the archive. RangeError for a name that does not fit. */
export function tarMembers(files: readonly TarFile[]): Buffer {
  const blocks = files.flatMap(({ name, content }) => {
    const data = Buffer.from(content);
    return [headerOf(name, data.length), data, Buffer.alloc((BLOCK - (data.length % BLOCK)) % BLOCK)];
  });
  return Buffer.concat(blocks);
}

function headerOf(name: string, size: number): Buffer {
  const header = Buffer.alloc(BLOCK);
  if (Buffer.byteLength(name) > 100) throw new RangeError(`too long for this archive: ${name}`);
  header.write(name, 0);
  header.write('0000644\0', 100);
  header.write('0000000\0', 108);
  header.write('0000000\0', 116);
  header.write(`${size.toString(8).padStart(11, '0')}\0`, 124);
  header.write('00000000000\0', 136);
  header.write('0', 156);
  header.write('ustar\x0000', 257);
  header.write(`${checksumOf(header).toString(8).padStart(6, '0')}\0 `, 148);
  return header;
}

/** The sum of the header's bytes, its own field counted as blanks. */
function checksumOf(header: Uint8Array): number {
  return header.reduce((sum, byte, index) => sum + (index >= 148 && index < 156 ? 0x20 : byte), 0);
}

function readOctal(header: Buffer, start: number, length: number): number {
  if (((header[start] ?? 0) & 0x80) !== 0) return Number(header.readBigUInt64BE(start + length - 8));
  return Number.parseInt(header.toString('latin1', start, start + length).replaceAll(/[\0 ]/g, '') || '0', 8);
}

function readText(header: Buffer, start: number, length: number): string {
  const field = header.subarray(start, start + length);
  const end = field.indexOf(0);
  return field.toString('utf8', 0, end < 0 ? length : end);
}

/** Entries that carry attributes of the next one (pax, GNU long names): not members. */
const ATTRIBUTES = new Set(['x', 'g', 'L', 'K', 'V']);

/** Names of the members whose headers lie in `head`, without leading "./"; undefined when it is not the head of an archive. */
export function tarNames(head: Buffer): readonly string[] | undefined {
  const names: string[] = [];
  for (let offset = 0; offset + BLOCK <= head.length; ) {
    const header = head.subarray(offset, offset + BLOCK);
    if (readOctal(header, 148, 8) !== checksumOf(header)) return offset === 0 ? undefined : names;
    if (!ATTRIBUTES.has(readText(header, 156, 1))) names.push(memberName(header));
    offset += BLOCK + Math.ceil(readOctal(header, 124, 12) / BLOCK) * BLOCK;
  }
  return head.length < BLOCK ? undefined : names;
}

function memberName(header: Buffer): string {
  const isUstar = readText(header, 257, 5) === 'ustar';
  const prefix = isUstar ? readText(header, 345, 155) : '';
  const name = readText(header, 0, 100);
  return (prefix === '' ? name : `${prefix}/${name}`).replace(/^(\.?\/)+/, '').replace(/\/+$/, '');
}
