// The lvm driver on a real device mapper.
import { describeWith } from '#test/integration/support.ts';
import { lvmMachine, unmappable } from './real-pools.ts';
import { storageSuite } from './storage-suite.ts';

const commands = ['lvcreate', 'thin_check', 'mkfs.ext4', 'losetup', 'tar', 'setcap'];

describeWith({ root: true, deviceMapper: true, commands }, 'lvm', () => {
  storageSuite('on files of its own', () => lvmMachine());
  storageSuite('without id-mapped mounts', () => lvmMachine(unmappable()));
});
