// Writes tar files that no honest tool would write.

export interface Member {
  /** Bytes as they are, for names that are no UTF-8. */
  readonly name: string | Buffer;
  /** '0' file, '1' hard link, '2' link, '3' character device, '4' block device, '5' directory, '6' fifo. */
  readonly type?: string;
  readonly data?: string | Buffer;
  readonly link?: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly device?: readonly [number, number];
  /** A size that the data does not have. */
  readonly size?: number;
  /** The field of the size, whatever that may mean. */
  readonly sizeField?: Buffer;
}

const BLOCK = 512;

function octal(value: number, length: number): string {
  return `${value.toString(8).padStart(length - 1, '0')}\0`;
}

function header({
  name,
  type = '0',
  link = '',
  mode = 0o644,
  uid = 0,
  gid = 0,
  device = [0, 0],
  ...member
}: Member): Buffer {
  const block = Buffer.alloc(BLOCK);
  const put = (text: string, at: number) => block.write(text, at, 'latin1');
  if (typeof name === 'string') put(name, 0);
  else name.copy(block, 0, 0, 100);
  put(octal(mode, 8), 100);
  put(octal(uid, 8), 108);
  put(octal(gid, 8), 116);
  put(octal(member.size ?? Buffer.byteLength(member.data ?? ''), 12), 124);
  member.sizeField?.copy(block, 124, 0, 12);
  put(octal(0, 12), 136);
  put('        ', 148);
  put(type, 156);
  put(link, 157);
  put('ustar\x0000', 257);
  put(octal(device[0], 8), 329);
  put(octal(device[1], 8), 337);
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return block;
}

function padded(data: string | Buffer): Buffer {
  const bytes = typeof data === 'string' ? Buffer.from(data) : data;
  return Buffer.concat([bytes, Buffer.alloc((BLOCK - (bytes.length % BLOCK)) % BLOCK)]);
}

export function tar(members: readonly Member[], { end = true } = {}): Buffer {
  const blocks = members.flatMap((member) => [header(member), padded(member.data ?? '')]);
  return Buffer.concat([...blocks, Buffer.alloc(end ? 2 * BLOCK : 0)]);
}

/** A pax header that says something about the next member. */
export function pax(records: Readonly<Record<string, string>>): Member {
  const lines = Object.entries(records).map(([key, value]) => {
    const body = ` ${key}=${value}\n`;
    let length = body.length + 1;
    while (String(length).length + body.length !== length) length = String(length).length + body.length;
    return `${length}${body}`;
  });
  return { name: 'pax', type: 'x', data: lines.join('') };
}
