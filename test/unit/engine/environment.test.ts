// What GET /1.0 says of the host is what the host has.
import { beforeEach, describe, expect, it } from 'vitest';
import { environmentOf, readHostFacts, usableDrivers } from '#src/engine/server/environment.ts';
import { storageDrivers } from '#drivers/storage/registry.ts';
import { FakeHost } from '../../fakes/fake-host.ts';

let host: FakeHost;
beforeEach(() => {
  host = new FakeHost().on(/^uname -m$/, 'x86_64\n');
  host.files.set('/proc/sys/kernel/osrelease', '6.1.0\n');
  host.files.set('/proc/sys/kernel/hostname', 'node1\n');
});

async function environment(): Promise<object> {
  return environmentOf({
    facts: await readHostFacts(host, '/state', async () => '5.0.2'),
    certificate: { certificate: 'PEM', fingerprint: 'ab' },
    pools: { list: () => [] },
    drivers: ['dir'],
    listenAddress: () => undefined,
    version: '0',
  });
}

describe('the environment', () => {
  it.each([
    [['/usr/sbin/nft', '/usr/sbin/iptables'], 'nftables'],
    [['/usr/sbin/iptables'], 'xtables'],
    [['/usr/local/bin/nft'], 'nftables'],
    [[], ''],
  ])('with %j names the firewall "%s"', async (programs, firewall) => {
    for (const program of programs) host.files.set(program, '');

    expect(await environment()).toMatchObject({ firewall });
  });

  it.each([true, false])('says whether mounts take id maps: %s', async (mappable) => {
    host.mounts.mappable = mappable;

    expect(await environment()).toMatchObject({ kernel_features: { idmapped_mounts: String(mappable) } });
  });

  it('has the nics that clients ask liblxc about', async () => {
    expect(await environment()).toMatchObject({ lxc_features: { network_veth_router: 'true' } });
  });

  it('names the storage drivers that this host can run', async () => {
    const modules = {
      dir: storageDrivers.dir,
      lvm: { ...storageDrivers.lvm, missing: async () => ['the device mapper in the kernel'] },
      zfs: { ...storageDrivers.zfs, missing: async () => [] },
    };

    expect(await usableDrivers(host, modules)).toEqual(['dir', 'zfs']);
    expect(await environment()).toMatchObject({ storage_supported_drivers: [{ Name: 'dir', Remote: false }] });
  });
});
