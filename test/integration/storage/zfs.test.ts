// The zfs driver on a real pool: OpenZFS where the kernel has it, else zfs-fuse.
import { describeWith, hasKernelZfs } from '#test/integration/support.ts';
import { zfsMachine } from './real-pools.ts';
import { storageSuite } from './storage-suite.ts';

const daemon = hasKernelZfs ? [] : ['zfs-fuse'];

describeWith({ root: true, commands: ['zpool', 'zfs', ...daemon] }, 'zfs', () => {
  storageSuite('on loop files', () => zfsMachine(), { hasStreams: true });
});
