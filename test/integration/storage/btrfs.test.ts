// The btrfs driver on real file systems.
import { describeWith } from '#test/integration/support.ts';
import { btrfsMachine, loopMachine, unmappable } from './real-pools.ts';
import { storageSuite } from './storage-suite.ts';

describeWith({ root: true, commands: ['mkfs.btrfs', 'losetup', 'tar', 'setcap'] }, 'btrfs', () => {
  storageSuite('on files of its own', () => btrfsMachine(), { hasStreams: true });
  storageSuite('in a subvolume of a file system that is there', () => loopMachine('btrfs', ['mkfs.btrfs', '-q']));
  storageSuite('without id-mapped mounts', () => btrfsMachine(unmappable()));
});
