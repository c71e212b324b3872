// The storage contract on a machine in memory.
import { describe, expect, it } from 'vitest';
import { silentLog } from '#src/lib/log.ts';
import { storageDrivers } from '#drivers/storage/registry.ts';
import { withCopies } from '#test/fakes/copies.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';
import { FakeLvm } from '#test/fakes/fake-lvm.ts';
import { FakeZfs } from '#test/fakes/fake-zfs.ts';
import { MAP, storageContract, type TestPool } from './storage-contract.ts';

/** mount(8) on the fake host. */
function withFileSystems(host: FakeHost): void {
  host.on(/^mount -t /, async ({ argv }) => {
    const [target = '', source = ''] = argv.toReversed();
    await host.mounts.mount({ source, target, type: 'btrfs' });
    return '';
  });
}

function fakePool(kind: keyof typeof storageDrivers, options: { mappable: boolean }): () => Promise<TestPool> {
  return () => {
    const host = withCopies(new FakeHost());
    const zfs = new FakeZfs(host);
    const lvm = kind === 'lvm' ? new FakeLvm(host) : undefined;
    if (kind === 'btrfs') withFileSystems(host);
    host.mounts.mappable = options.mappable;
    const poolPath = '/pools/p';
    const context = { host, log: silentLog, pool: 'p', poolPath, disksPath: '/disks', config: {}, defaultIdMap: MAP };
    const create = () => storageDrivers[kind].create(context);
    return Promise.resolve({
      host,
      driver: create(),
      poolPath,
      restarted: create,
      remains: () =>
        Promise.resolve([
          ...[...host.files.keys()].filter((path) => path.startsWith('/pools/p') || path.endsWith('.img')),
          ...host.mounts.table.keys(),
          ...zfs.datasets.keys(),
          ...(lvm?.volumes.keys() ?? []),
          ...(lvm?.loops.keys() ?? []),
        ]),
      async [Symbol.asyncDispose]() {},
    });
  };
}

describe('overlay where the kernel maps ids', () => storageContract(fakePool('overlay', { mappable: true })));
describe('overlay where it does not', () => storageContract(fakePool('overlay', { mappable: false })));
describe('dir where the kernel maps ids', () => storageContract(fakePool('dir', { mappable: true })));
describe('dir where it does not', () => storageContract(fakePool('dir', { mappable: false })));
describe('btrfs where the kernel maps ids', () => storageContract(fakePool('btrfs', { mappable: true })));
describe('btrfs where it does not', () => storageContract(fakePool('btrfs', { mappable: false })));
describe('lvm where the kernel maps ids', () => storageContract(fakePool('lvm', { mappable: true })));
describe('lvm where it does not', () => storageContract(fakePool('lvm', { mappable: false })));
describe('zfs', () => storageContract(fakePool('zfs', { mappable: false })));

describe('the registry', () => {
  it('names each driver as its module does', () => {
    expect(Object.entries(storageDrivers).filter(([name, module]) => module.name !== name)).toEqual([]);
  });
});
