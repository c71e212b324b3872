import { expect, it } from 'vitest';
import type { BoundVif } from '#drivers/vif/driver.ts';
import { vifDrivers } from '#drivers/vif/registry.ts';
import { silentLog } from '#src/lib/log.ts';
import { OVS_OPTIONS, TEST_VIF } from '#test/fakes/fake-vif.ts';
import { FakeVifMachine } from '#test/fakes/fake-vif-machine.ts';

const signal = AbortSignal.timeout(5000);

async function plugged(
  details: BoundVif['details'],
): Promise<{ readonly host: FakeVifMachine; readonly batch: string }> {
  const host = new FakeVifMachine();
  const driver = vifDrivers.tap.create({ host, log: silentLog, ovs: OVS_OPTIONS });
  await driver.plug({ ...TEST_VIF, type: 'tap', details }, 'eth0', signal);
  return { host, batch: host.commands.map(({ input }) => input).join('') };
}

it('a tap is in no bridge, and the host speaks IPv6 on it', async () => {
  const { host, batch } = await plugged({});

  expect(batch).toContain('link set dev tap6c3fc145-99 mtu 1450 up\n');
  expect(batch).not.toMatch(/master|addrgenmode/);
  expect(host.files.get('/proc/sys/net/ipv6/conf/tap6c3fc145-99/disable_ipv6')).toBe('0');
});

it('a tap has the address that the binding wants on this host', async () => {
  const { batch } = await plugged({ mac_address: '00:61:fe:ed:ca:fe' });

  expect(batch).toContain('link add name tap6c3fc145-99 address 00:61:fe:ed:ca:fe mtu 1450 type veth');
});

it('a tap with an address that is none is refused', async () => {
  await expect(plugged({ mac_address: 'no' })).rejects.toMatchObject({ kind: 'invalid' });
});
