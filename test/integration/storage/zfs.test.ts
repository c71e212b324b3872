// The zfs driver on a real pool: OpenZFS where the kernel has it, else zfs-fuse.
import { existsSync } from 'node:fs';
import { describeWith } from '#test/integration/support.ts';
import { zfsMachine } from './real-pools.ts';
import { storageSuite } from './storage-suite.ts';

const daemon = existsSync('/sys/module/zfs') ? [] : ['zfs-fuse'];

describeWith({ root: true, commands: ['zpool', 'zfs', ...daemon] }, 'zfs', () => {
  storageSuite('on loop files', () => zfsMachine(), { hasStreams: true });
});
