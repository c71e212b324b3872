// Which volumes are connected here, for whom, and what a process that was killed leaves to the next one.
import { describe, expect, it } from 'vitest';
import { connectorFacts } from '#src/compute/volumes/connector.ts';
import { createHostVolumes } from '#src/compute/volumes/host-volumes.ts';
import { silentLog } from '#src/lib/silent-log.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';
import { FakeLoops } from '#test/fakes/fake-loops.ts';

const VOLUME = '11111111-1111-4111-8111-111111111111';
const ONE = '22222222-2222-4222-8222-222222222222';
const TWO = '33333333-3333-4333-8333-333333333333';
const FOLDER = '/state/volumes/boot-1';
const connection = { type: 'local', data: { device_path: '/var/disk' } };
const signal = (): AbortSignal => AbortSignal.timeout(5000);

function world() {
  const host = new FakeHost();
  host.files.set('/proc/sys/kernel/random/boot_id', 'boot-1\n').set('/var/disk', 'x');
  host.on(/^ln /, ({ argv }) => {
    host.files.set(argv.at(-1) ?? '', argv.at(-2) ?? '');
    return '';
  });
  const loops = new FakeLoops(host);
  const options = { host, log: silentLog, mountFolder: '/mnt', mountOptions: null, folder: '/state/volumes' };
  return { host, loops, volumes: createHostVolumes(options), next: () => createHostVolumes(options) };
}

const use = (instanceUuid: string) => ({ volumeId: VOLUME, instanceUuid });

describe('volumes of this host', () => {
  it('have names that change with a boot of the host', async () => {
    const { host, volumes } = world();

    const path = await volumes.connect(use(ONE), connection, signal());

    expect(path).toBe(`${FOLDER}/${VOLUME}/${ONE}`);
    expect(host.files.get(path)).toBe('/dev/loop0');
  });

  it('stay connected until the last instance has let go', async () => {
    const { host, loops, volumes } = world();
    await volumes.connect(use(ONE), connection, signal());
    await volumes.connect(use(TWO), connection, signal());

    await volumes.disconnect(use(ONE), connection, signal());
    expect(loops.files.size).toBe(1);
    await volumes.disconnect(use(TWO), connection, signal());

    expect(loops.files.size).toBe(0);
    expect(await host.list(FOLDER)).toEqual([]);
  });

  it('are forgotten when they cannot be connected', async () => {
    const { host, volumes } = world();
    host.files.delete('/var/disk');
    host.on(/^test -b/, () => ({ exitCode: 1 }));

    await expect(volumes.connect(use(ONE), connection, signal())).rejects.toThrow('neither a file nor a block device');

    expect([...host.files.keys()].filter((path) => path.endsWith('.json'))).toEqual([]);
  });

  it('of instances that are gone are disconnected by the next process, without being told how', async () => {
    const { host, loops, volumes, next } = world();
    await volumes.connect(use(ONE), connection, signal());
    host.files.set('/state/volumes/boot-0/old', 'x');

    expect(await next().keepOnly(new Set([TWO]), signal())).toEqual([]);

    expect(loops.files.size).toBe(0);
    expect(await host.list('/state/volumes')).toEqual(['boot-1']);
  });

  it('are still known when they are in use', async () => {
    const { loops, volumes, next } = world();
    await volumes.connect(use(ONE), connection, signal());
    loops.busy.add('/dev/loop0');

    await expect(volumes.disconnect(use(ONE), null, AbortSignal.timeout(200))).rejects.toThrow();
    loops.busy.clear();
    await next().disconnectInstance(ONE, signal());

    expect(loops.files.size).toBe(0);
  });

  it('of an unknown type, or with ids that are none, are refused', async () => {
    const { host, volumes } = world();

    const strange = { type: 'rbd', data: {} };
    await expect(volumes.connect(use(ONE), strange, signal())).rejects.toMatchObject({ kind: 'unsupported' });
    await expect(volumes.connect(use('../../x'), connection, signal())).rejects.toMatchObject({ kind: 'invalid' });

    expect(host.calls).toEqual([]);
  });
});

describe('what Cinder is told of this host', () => {
  it('names initiators where there are some', async () => {
    const host = new FakeHost().on(/^uname/, 'x86_64\n');
    const own = { host: 'node1', ip: '10.0.0.1' };

    const without = await connectorFacts(host, own, signal());
    host.files.set('/etc/iscsi/initiatorname.iscsi', '## comment\nInitiatorName=iqn.1993-08.org.debian:01:a\n');
    host.files.set('/etc/nvme/hostnqn', 'nqn.2014-08.org:b\n');
    const withBoth = await connectorFacts(host, own, signal());

    expect(without).toEqual({
      platform: 'x86_64',
      os_type: 'linux',
      multipath: false,
      do_local_attach: false,
      ...own,
    });
    expect(withBoth).toMatchObject({ initiator: 'iqn.1993-08.org.debian:01:a', nqn: 'nqn.2014-08.org:b' });
  });
});
