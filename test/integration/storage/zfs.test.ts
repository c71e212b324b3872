// The zfs driver on a real pool: OpenZFS where the kernel has it, else zfs-fuse.
import { describeWith } from '#test/integration/support.ts';
import { zfsMachine } from './real-pools.ts';
import { storageSuite } from './storage-suite.ts';

describeWith({ root: true, commands: ['zpool', 'zfs', 'zfs-fuse'] }, 'zfs', () => {
  storageSuite('on loop files', () => zfsMachine(), { hasStreams: true });
});
