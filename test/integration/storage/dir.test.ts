// The dir driver on real file systems.
import { describeWith } from '#test/integration/support.ts';
import { loopMachine, plainMachine, unmappable } from './real-pools.ts';
import { storageSuite } from './storage-suite.ts';

describeWith({ root: true, commands: ['tar', 'setcap', 'nsenter', 'unshare', 'prlimit'] }, 'dir', () => {
  storageSuite('on the file system of /var/tmp', () => plainMachine('dir'));
  storageSuite('without id-mapped mounts', () => plainMachine('dir', unmappable()));
});

describeWith(
  { root: true, commands: ['mkfs.btrfs', 'losetup'] },
  'dir on btrfs, where copies share their blocks',
  () => {
    storageSuite('btrfs', () => loopMachine('dir', ['mkfs.btrfs', '-q']));
  },
);
