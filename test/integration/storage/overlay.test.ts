// The overlay driver on real file systems.
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { FINGERPRINT, MAP, signal, withImage } from '#test/contract/storage-contract.ts';
import { describeWith } from '#test/integration/support.ts';
import { loopMachine, plainMachine, unmappable } from './real-pools.ts';
import { storageSuite } from './storage-suite.ts';

describeWith({ root: true, commands: ['tar', 'setcap', 'nsenter', 'unshare', 'prlimit'] }, 'overlay', () => {
  storageSuite('on the file system of /var/tmp', () => plainMachine('overlay'));
  storageSuite('without id-mapped mounts', () => plainMachine('overlay', unmappable()));
});

describeWith({ root: true }, 'overlay and a daemon that is killed', () => {
  it('mounts nothing any more that it mounted for a moment', async () => {
    await using machine = await plainMachine('overlay');
    await using pool = await withImage(() => machine.newPool());
    const { driver, host, poolPath } = pool;
    await driver.createInstance({ name: 'c1', image: FINGERPRINT, idMap: MAP }, signal());
    const volume = { kind: 'container', name: 'c1' } as const;
    await driver.createSnapshot(volume, 's0', signal());
    const { rootfsPath } = await driver.mountInstance('c1', MAP, signal());
    await driver.mountSnapshot({ volume, snapshot: 's0', idMap: MAP }, signal());
    for (const path of ['containers/c1/lower', 'containers-snapshots/c1/s0/lower']) {
      const target = join(poolPath, path);
      await host.mounts.mount({ source: join(poolPath, 'images'), target, type: 'none', flags: ['bind'] });
    }

    await pool.restarted().openPool(signal());

    // A container may run in it.
    expect(await host.mounts.mountsUnder(poolPath)).toEqual([rootfsPath]);
  });
});

describeWith({ root: true, commands: ['mkfs.btrfs', 'losetup'] }, 'overlay on other file systems', () => {
  storageSuite('btrfs', () => loopMachine('overlay', ['mkfs.btrfs', '-q']));
  storageSuite('ext4', () => loopMachine('overlay', ['mkfs.ext4', '-q']));
});
