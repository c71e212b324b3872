// The overlay driver on real file systems.
import { LinuxHost } from '#src/host/linux-host.ts';
import { describeWith } from '#test/integration/support.ts';
import { loopMachine, plainMachine, unmappable } from './real-pools.ts';
import { storageSuite } from './storage-suite.ts';

describeWith({ root: true, commands: ['tar', 'setcap', 'nsenter', 'unshare', 'prlimit'] }, 'overlay', () => {
  storageSuite('on the file system of /var/tmp', () => plainMachine('overlay'));
  storageSuite('without id-mapped mounts', () => plainMachine('overlay', unmappable(new LinuxHost())));
});

describeWith({ root: true, commands: ['mkfs.btrfs', 'losetup'] }, 'overlay on other file systems', () => {
  storageSuite('btrfs', () => loopMachine('overlay', ['mkfs.btrfs', '-q']));
  storageSuite('ext4', () => loopMachine('overlay', ['mkfs.ext4', '-q']));
});
