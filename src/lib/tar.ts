// Tar archives, as little as images need: the names at the head of one, and a small one written.

const BLOCK = 512;
const MAX_NAME_BYTES = 100;
const MAX_OCTAL = 8 ** 11;

export interface TarFile {
  readonly name: string;
  readonly content: string;
}

/** A ustar archive of regular files; the same files give the same bytes. */
export function writeTar(files: readonly TarFile[]): Buffer {
  return Buffer.concat([tarMembers(files), tarEnd()]);
}

/** The same without an end: what follows it is more of the archive. RangeError for a name that does not fit. */
export function tarMembers(files: readonly TarFile[]): Buffer {
  const blocks = files.flatMap(({ name, content }) => {
    const data = Buffer.from(content);
    return [headerOf(name, data.length), data, tarPadding(data.length)];
  });
  return Buffer.concat(blocks);
}

/** What comes before so many bytes of a member's content; a long name in a header of its own. */
export function tarHeader(name: string, size: number): Buffer {
  if (Buffer.byteLength(name) <= MAX_NAME_BYTES) return headerOf(name, size);
  const attributes = Buffer.from(paxRecord('path', name));
  const before = [headerOf('attributes', attributes.length, 'x'), attributes, tarPadding(attributes.length)];
  return Buffer.concat([...before, headerOf('member', size)]);
}

/** What comes after a member's content. */
export function tarPadding(size: number): Buffer {
  return Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);
}

/** What comes after the last member. */
export function tarEnd(): Buffer {
  return Buffer.alloc(2 * BLOCK);
}

/** Its length counts itself. */
function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  const bytes = Buffer.byteLength(rest);
  let length = bytes + String(bytes).length;
  length = bytes + String(length).length;
  return `${length}${rest}`;
}

function headerOf(name: string, size: number, type = '0'): Buffer {
  const header = Buffer.alloc(BLOCK);
  if (Buffer.byteLength(name) > MAX_NAME_BYTES) throw new RangeError(`too long for this archive: ${name}`);
  header.write(name, 0);
  header.write('0000644\0', 100);
  header.write('0000000\0', 108);
  header.write('0000000\0', 116);
  writeSize(header, size);
  header.write('00000000000\0', 136);
  header.write(type, 156);
  header.write('ustar\x0000', 257);
  header.write(`${checksumOf(header).toString(8).padStart(6, '0')}\0 `, 148);
  return header;
}

/** Octal digits, or from 8 GiB on the number itself. */
function writeSize(header: Buffer, size: number): void {
  if (size < MAX_OCTAL) {
    header.write(`${size.toString(8).padStart(11, '0')}\0`, 124);
    return;
  }
  header[124] = 0x80;
  header.writeBigUInt64BE(BigInt(size), 128);
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
