// Members of a POSIX tar archive (pax): all that a file has beside its content.
const BLOCK = 512;
const MAX_OCTAL_SIZE = 8 ** 11 - 1;
const MAX_OCTAL_ID = 8 ** 7 - 1;

export type TarType = 'file' | 'hardlink' | 'symlink' | 'directory' | 'fifo';

export interface TarEntry {
  /** Names are bytes, as latin1. */
  readonly path: string;
  readonly type: TarType;
  readonly linkTarget?: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly modified: number;
  /** Further records of the pax header. */
  readonly records: readonly (readonly [string, Buffer])[];
}

const TYPES: Readonly<Record<TarType, string>> = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  directory: '5',
  fifo: '6',
};

export const TAR_END = Buffer.alloc(2 * BLOCK);

/** Zeros that follow a content of that many bytes. */
export function tarPadding(sizeBytes: number): Buffer {
  return Buffer.alloc((BLOCK - (sizeBytes % BLOCK)) % BLOCK);
}

/** What comes before the content. */
export function tarHeader(entry: TarEntry): Buffer {
  const records = [...longRecords(entry), ...entry.records];
  if (records.length === 0) return ustar(entry, TYPES[entry.type]);
  const content = Buffer.concat(records.map(([key, value]) => paxRecord(key, value)));
  const about = { ...entry, path: 'PaxHeader', linkTarget: '', mode: 0o644, uid: 0, gid: 0, modified: 0 };
  const header = ustar({ ...about, sizeBytes: content.length }, 'x');
  return Buffer.concat([header, content, tarPadding(content.length), ustar(entry, TYPES[entry.type])]);
}

/** What does not fit in the fields of the old header. */
function longRecords(entry: TarEntry): readonly (readonly [string, Buffer])[] {
  const { path, linkTarget = '', uid, gid, sizeBytes, modified } = entry;
  const number = (value: number): Buffer => Buffer.from(String(value));
  const all: readonly (readonly [string, boolean, Buffer])[] = [
    ['path', path.length > 100, Buffer.from(path, 'latin1')],
    ['linkpath', linkTarget.length > 100, Buffer.from(linkTarget, 'latin1')],
    ['uid', uid > MAX_OCTAL_ID, number(uid)],
    ['gid', gid > MAX_OCTAL_ID, number(gid)],
    ['size', sizeBytes > MAX_OCTAL_SIZE, number(sizeBytes)],
    ['mtime', modified < 0 || modified > MAX_OCTAL_SIZE, number(modified)],
  ];
  return all.filter(([, isLong]) => isLong).map(([key, , value]) => [key, value]);
}

/** "LENGTH KEY=VALUE\n"; the length counts itself. */
function paxRecord(key: string, value: Buffer): Buffer {
  const rest = key.length + value.length + 3;
  let length = rest + 1;
  while (String(length).length + rest !== length) length = String(length).length + rest;
  return Buffer.concat([Buffer.from(`${length} ${key}=`), value, Buffer.from('\n')]);
}

function ustar(entry: TarEntry, type: string): Buffer {
  const header = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, digits: number): void => {
    const fits = value >= 0 && value < 8 ** digits;
    header.write(`${(fits ? value : 0).toString(8).padStart(digits, '0')}\0`, at, 'latin1');
  };
  header.write(entry.path.slice(0, 100), 0, 'latin1');
  octal(entry.mode, 100, 7);
  octal(entry.uid, 108, 7);
  octal(entry.gid, 116, 7);
  octal(entry.sizeBytes, 124, 11);
  octal(entry.modified, 136, 11);
  header.write(type, 156);
  header.write((entry.linkTarget ?? '').slice(0, 100), 157, 'latin1');
  header.write('ustar\x0000', 257, 'latin1');
  header.fill(0x20, 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return header;
}
