// The volume drivers on real loop devices.
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe } from 'vitest';
import { local } from '#drivers/volume/local/local.ts';
import { nfs } from '#drivers/volume/nfs/nfs.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/silent-log.ts';
import { volumeContract } from '../../contract/volume-contract.ts';
import { describeWith } from '../support.ts';

const EXPORT = 'nowhere.invalid:/share';

describeWith({ root: true, commands: ['losetup', 'blockdev', 'mount'] }, 'volume drivers', () => {
  describe.each([
    ['local', local],
    ['nfs', nfs],
  ] as const)('%s', (type, module) => {
    volumeContract(async () => {
      const host = new LinuxHost();
      const folder = mkdtempSync(join(tmpdir(), 'lightervisor-volume-'));
      const share = join(folder, createHash('md5').update(EXPORT).digest('hex'));
      const file = join(share, 'volume-1');
      mkdirSync(share);
      // a mount of the operator's own, as this kernel may have no NFS
      if (type === 'nfs') await host.run(['mount', '--bind', share, share]);
      writeFileSync(file, '');
      truncateSync(file, 2 ** 20);
      const data = type === 'nfs' ? { export: EXPORT, name: 'volume-1' } : { device_path: file };
      return {
        driver: module.create({ host, log: silentLog, mountFolder: folder, mountOptions: null }),
        connection: { type, data },
        devices: async () => {
          const { stdout } = await host.run(['losetup', '--list', '--noheadings', '--output', 'NAME,BACK-FILE']);
          return stdout.split('\n').flatMap((line) => (line.includes(file) ? (line.split(/\s+/)[0] ?? '') : []));
        },
        sizeBytes: async (device) => Number((await host.run(['blockdev', '--getsize64', device])).stdout),
        grow: async (size) => truncateSync(file, size),
        remove: async () => rmSync(file),
        async [Symbol.asyncDispose]() {
          if (type === 'nfs') await host.run(['umount', share]);
          rmSync(folder, { recursive: true });
        },
      };
    });
  });
});
