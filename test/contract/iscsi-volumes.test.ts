// The driver of iSCSI volumes on a machine in memory; test/integration/host/iscsi.test.ts has real targets.
import { describe, expect, it } from 'vitest';
import type { VolumeConnection } from '#drivers/volume/driver.ts';
import { IscsiVolumes } from '#drivers/volume/iscsi/iscsi.ts';
import { CommandError } from '#src/host/command-error.ts';
import { silentLog } from '#src/lib/silent-log.ts';
import { FakeIscsi, type FakeTarget } from '#test/fakes/fake-iscsi.ts';
import { volumeContract } from './volume-contract.ts';

const IQN = 'iqn.2010-10.org.openstack:volume-1';
const PORTAL = '192.0.2.7:3260';
const DATA = { target_portal: PORTAL, target_iqn: IQN, target_lun: 1, target_discovered: false };
const MIB = 2 ** 20;
const signal = (): AbortSignal => AbortSignal.timeout(5000);
const of = (data: Readonly<Record<string, unknown>> = {}): VolumeConnection => ({
  type: 'iscsi',
  data: { ...DATA, ...data },
});

function world(target: Partial<FakeTarget> = {}) {
  const host = new FakeIscsi();
  host.targets.set(IQN, { portal: PORTAL, units: new Map([[1, MIB]]), ...target });
  const uses = new Map<string, string>();
  const context = { host, log: silentLog, mountFolder: '/mnt', mountOptions: null };
  const driver = new IscsiVolumes(context, (_host, device) => Promise.resolve(uses.get(device)));
  return { host, driver, uses };
}

function isClean({ sessions, nodes, disks }: FakeIscsi): boolean {
  return sessions.size + nodes.size + disks.size === 0;
}

describe('driver iscsi', () => {
  volumeContract(async () => {
    const { host, driver } = world();
    const units = host.targets.get(IQN)?.units;
    return {
      driver,
      connection: of(),
      devices: () => Promise.resolve([...host.disks.keys()].map((name) => `/dev/${name}`)),
      sizeBytes: (device) => Promise.resolve(host.disks.get(device.slice('/dev/'.length))?.sizeBytes ?? 0),
      grow: async (sizeBytes) => void units?.set(1, sizeBytes),
      remove: async () => void host.targets.delete(IQN),
      async [Symbol.asyncDispose]() {},
    };
  });

  it('leaves neither session nor settings behind', async () => {
    const { host, driver } = world();
    await driver.connect(of(), signal());
    expect(host.nodes.get(`${IQN} ${PORTAL}`)?.get('node.session.scan')).toBe('manual');

    await driver.disconnect(of(), signal());

    expect(isClean(host)).toBe(true);
  });

  it('keeps the session while another volume of the target is here', async () => {
    const { host, driver } = world({ units: new Map([1, 2].map((lun) => [lun, MIB])) });
    const other = of({ target_lun: 2 });
    await driver.connect(of(), signal());
    expect(host.disks.size).toBe(1);
    await driver.connect(other, signal());

    await driver.disconnect(of(), signal());
    expect([...host.disks.values()].map(({ lun }) => lun)).toEqual([2]);
    expect(host.sessions.size).toBe(1);

    await driver.disconnect(other, signal());
    expect(isClean(host)).toBe(true);
  });

  it('logs in with a password, which no error tells', async () => {
    const chap = { user: 'me', password: 'very secret' };
    const { host, driver } = world({ chap });
    const withPassword = (password: string) =>
      of({ auth_method: 'CHAP', auth_username: 'me', auth_password: password });

    expect(await driver.connect(withPassword('very secret'), signal())).toBe('/dev/sda');
    await driver.disconnect(withPassword('very secret'), signal());
    const refused = driver.connect(withPassword('a wrong one'), signal());

    await expect(refused).rejects.toThrow(`iscsiadm with ${PORTAL}: authorization failure`);
    await expect(refused).rejects.not.toHaveProperty('argv');
    expect(isClean(host)).toBe(true);
    host.fail(/auth\.password/, 'iscsiadm: cannot write');
    await expect(driver.connect(withPassword('very secret'), signal())).rejects.toThrow(/: cannot write$/);
  });

  it('says why when there is no open-iscsi', async () => {
    const { host, driver } = world();
    host.on(/^iscsiadm/, ({ argv }) => {
      throw new CommandError(argv, { exitCode: null, stderr: '', cause: new Error('spawn iscsiadm ENOENT') });
    });

    await expect(driver.connect(of(), signal())).rejects.toMatchObject({
      kind: 'unavailable',
      message: `iscsiadm with ${PORTAL}: spawn iscsiadm ENOENT`,
    });
  });

  it('takes the next portal where the first one does not answer', async () => {
    const { host, driver } = world();
    const several = of({
      target_portal: '[2001:db8::1]:3260',
      target_portals: ['[2001:db8::1]:3260', PORTAL],
      target_iqns: [IQN, IQN],
      target_luns: [1, 1],
    });

    expect(await driver.connect(several, signal())).toBe('/dev/sda');
    expect([...host.nodes.keys()]).toEqual([`${IQN} ${PORTAL}`]);

    await driver.disconnect(several, signal());
    expect(isClean(host)).toBe(true);
  });

  it('takes no disk away that somebody has', async () => {
    const { host, driver, uses } = world();
    const device = await driver.connect(of(), signal());
    uses.set(device, 'fsck');

    await expect(driver.disconnect(of(), signal())).rejects.toMatchObject({ kind: 'conflict' });
    expect(host.disks.size).toBe(1);

    uses.clear();
    await driver.disconnect(of(), signal());
    expect(isClean(host)).toBe(true);
  });

  it.each([
    { target_portal: '-x:3260' },
    { target_portal: '192.0.2.7' },
    { target_portal: '192.0.2.7:99999' },
    { target_iqn: '../../etc' },
    { target_iqn: 'iqn.x --op delete' },
    { target_lun: '1' },
    { target_lun: -1 },
    { target_lun: 1.5 },
    { auth_method: 'CHAP' },
    { target_portals: ['x'], target_iqns: [IQN], target_luns: [1] },
  ])('refuses %j', async (data) => {
    const { host, driver } = world();

    await expect(driver.connect(of(data), signal())).rejects.toMatchObject({ kind: 'invalid' });

    expect(host.calls).toEqual([]);
  });

  it('refuses other ways to log in', async () => {
    const { driver } = world();

    await expect(driver.connect(of({ auth_method: 'KRB5' }), signal())).rejects.toMatchObject({ kind: 'unsupported' });
  });
});
