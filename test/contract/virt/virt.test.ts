// The virt contract on the driver in memory, and on the LXD driver with servers of different abilities.
import { FakeVirtDriver } from '#drivers/virt/fake/fake.ts';
import { LxdDriver } from '#drivers/virt/lxd/driver.ts';
import { DEFAULT_OPTIONS } from '#drivers/virt/lxd/options.ts';
import { writeTar } from '#src/lib/tar.ts';
import { silentLog } from '#src/lib/log.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';
import { FakeLxd, type FakeLxdOptions } from '#test/fakes/fake-lxd.ts';
import { type VirtUnderTest, virtContract } from './virt-contract.ts';

const rootfs = writeTar([{ name: 'sbin/init', content: '#!/bin/sh\n' }]);

virtContract('fake', async () => ({
  driver: new FakeVirtDriver({ nodeName: 'node' }),
  rootfs,
  limitMs: 5000,
  async [Symbol.asyncDispose]() {},
}));

function lxdOn(options: FakeLxdOptions): () => Promise<VirtUnderTest> {
  return async () => {
    const server = await FakeLxd.start(options);
    const host = new FakeHost();
    host.files.set('/proc/uptime', '93784.12 1234.56\n').set('/proc/loadavg', '0.10 0.20 0.30 1/234 5678\n');
    const driver = new LxdDriver({
      log: silentLog,
      host,
      options: { ...DEFAULT_OPTIONS, endpoint: server.endpoint, stateFolder: '/var/lib/nova' },
    });
    return { driver, rootfs, limitMs: 10_000, [Symbol.asyncDispose]: async () => server[Symbol.asyncDispose]() };
  };
}

virtContract('lxd, as LXD 5.0.2', lxdOn({}));
virtContract('lxd, operations that take time', lxdOn({ operationMs: 20 }));
virtContract(
  'lxd, as lighterd',
  lxdOn({ extensions: ['instances', 'cloud_init', 'lighter_disk_instance_root'], serverVersion: '5.0.2' }),
);
virtContract(
  'lxd, as Incus 6',
  lxdOn({ extensions: ['instances', 'cloud_init', 'instance_create_start'], serverVersion: '6.0.4' }),
);
