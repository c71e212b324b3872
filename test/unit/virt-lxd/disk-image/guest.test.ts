// What of a virtual machine's root is written anew for a container, and how.
import { describe, expect, it } from 'vitest';
import { accessListText } from '#src/host/disk-content/ext/access-list.ts';
import { entriesOf } from '#src/host/disk-content/ext/directory-block.ts';
import { containerFstab } from '#drivers/virt/lxd/disk-image/guest-fstab.ts';
import { type TarEntry, tarHeader } from '#drivers/virt/lxd/disk-image/tar-entry.ts';
import { tarNames } from '#src/lib/tar.ts';

it('fstab loses what stands on devices, and nothing else', () => {
  const before = [
    '# /etc/fstab',
    'PARTUUID=0f1 / ext4 rw,discard,x-systemd.growfs 0 1',
    '  LABEL=UEFI /boot/efi vfat umask=0077 0 1',
    '"UUID=12" /srv ext4 defaults 0 2',
    '/dev/vdb none swap sw 0 0',
    'tmpfs /tmp tmpfs defaults 0 0',
    'server:/home /home nfs defaults 0 0',
    '',
  ];

  const after = containerFstab(before.join('\n')).split('\n');

  expect(after.map((line) => line.startsWith('# not in a container: '))).toEqual([
    false,
    true,
    true,
    true,
    true,
    false,
    false,
    false,
  ]);
  expect(after.map((line) => line.replace('# not in a container: ', ''))).toEqual(before);
});

describe('access lists of ext', () => {
  const words = (...list: readonly (readonly [number, 2 | 4])[]): Buffer =>
    Buffer.concat(
      list.map(([value, bytes]) => {
        const buffer = Buffer.alloc(bytes);
        buffer.writeUIntLE(value, 0, bytes);
        return buffer;
      }),
    );
  const short = (tag: number, bits: number): readonly (readonly [number, 2 | 4])[] => [
    [tag, 2],
    [bits, 2],
  ];

  it('are written with numbers', () => {
    const list = words(
      [1, 4],
      ...short(1, 6),
      ...short(2, 7),
      [1000, 4],
      ...short(4, 4),
      ...short(16, 7),
      ...short(32, 0),
    );

    expect(accessListText(list)).toBe('user::rw-,user:1000:rwx,group::r--,mask::rwx,other::---');
  });

  it.each([
    ['empty', Buffer.alloc(0)],
    ['of another version', words([2, 4])],
    ['with an unknown tag', words([1, 4], ...short(64, 7))],
    ['with unknown bits', words([1, 4], ...short(1, 8))],
    ['cut off in an entry', words([1, 4], [1, 2])],
    ['cut off before an id', words([1, 4], ...short(2, 7))],
  ])('%s: refused', (_what, list) => {
    expect(() => accessListText(list)).toThrow('access list');
  });
});

describe('blocks of directories', () => {
  const record = (inode: number, name: string, bytes: number, nameBytes = name.length): Buffer => {
    const buffer = Buffer.alloc(Math.max(bytes, 8 + name.length));
    buffer.writeUInt32LE(inode, 0);
    buffer.writeUInt16LE(bytes, 4);
    buffer.writeUInt8(nameBytes, 6);
    buffer.write(name, 8, 'latin1');
    return buffer;
  };

  it('give their names, without those of themselves and of what was deleted', () => {
    const block = [record(2, '.', 12), record(2, '..', 12), record(0, 'gone', 12), record(7, 'a', 988)];

    expect(entriesOf(Buffer.concat(block))).toEqual([{ name: 'a', inode: 7 }]);
  });

  it.each([
    ['of no length', record(7, 'a', 0)],
    ['beyond the block', record(7, 'a', 400)],
    ['of a crooked length', Buffer.concat([record(7, 'a', 13), Buffer.alloc(20)])],
    ['with a name beyond it', record(7, 'a', 12, 200)],
    ['with a slash', record(7, '../x', 12)],
    ['with a zero byte', record(7, 'a\0b', 12)],
    ['without a name', record(7, '', 8)],
  ])('with an entry %s are refused', (_what, entry) => {
    const block = Buffer.alloc(256);
    entry.copy(block);

    expect(() => entriesOf(block.subarray(0, 256))).toThrow('the ext file system is damaged');
  });
});

it('what does not fit in a header of tar has a second one', () => {
  const entry: TarEntry = {
    path: `${'d/'.repeat(80)}file`,
    type: 'file',
    mode: 0o4755,
    uid: 3_000_000,
    gid: 0,
    sizeBytes: 9 * 1024 ** 3,
    modified: -5,
    records: [['SCHILY.xattr.security.capability', Buffer.from([1, 0, 0, 2])]],
  };

  const header = tarHeader(entry);

  expect(header.length).toBe(3 * 512);
  expect(header.toString('latin1')).toContain('174 path=d/d/');
  for (const record of ['15 uid=3000000\n', '19 size=9663676416\n', '.capability=\x01\0\0\x02\n', ' mtime=-5\n']) {
    expect(header.toString('latin1')).toContain(record);
  }
  expect(tarNames(header.subarray(0, 1024))).toEqual([]);
});
