import { expect, it } from 'vitest';
import { cleanMappings } from '#src/host/resident-pages.ts';

const entry = (header: string, anonymous: number) =>
  `${header}\nSize: 4 kB\nRss: 4 kB\nAnonymous:             ${anonymous} kB\nVmFlags: rd mr\n`;

it('finds code and read-only data of the file, and nothing that was changed or belongs to somebody else', () => {
  const smaps = [
    entry('00400000-00746000 r--p 00000000 fe:00 5316915                            /opt/node', 0),
    entry('0074a000-03044000 r-xp 0034a000 fe:00 5316915                            /opt/node', 0),
    entry('06b52000-06b56000 r--p 06751000 fe:00 5316915                            /opt/node', 8),
    entry('06b56000-06b7d000 rw-p 06755000 fe:00 5316915                            /opt/node', 0),
    entry('7f0000000000-7f0000001000 r-xp 00000000 fe:00 7                          /usr/lib/libc.so.6', 0),
    entry('7f0000002000-7f0000003000 r--p 00000000 00:00 0 ', 0),
  ].join('');

  expect(cleanMappings(smaps, '/opt/node')).toEqual([
    { start: 0x400000n, bytes: 0x346000n },
    { start: 0x74a000n, bytes: 0x28fa000n },
  ]);
});
