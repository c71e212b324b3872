// What is sent to DHCP for instances that are gone, byte by byte.
import { expect, it } from 'vitest';
import { parseLeaseFile, release4, release6 } from '#drivers/network/bridge/dhcp-release.ts';
import { parseIp } from '#src/lib/ip.ts';

const FILE = [
  '1700000000 00:16:3e:aa:bb:cc 10.1.0.7 c1 01:00:16:3e:aa:bb:cc',
  'duid 00:01:00:01:2c:11:22:33:02:42:ac:11:00:02',
  '1700000000 4026531840 fd00::7 c1 00:03:00:01:00:16:3e:aa:bb:cc',
  'nonsense',
  '',
].join('\n');

it('reads leases of both families, and the name of the server', () => {
  const { leases, serverDuid } = parseLeaseFile(FILE);

  expect(leases.map(({ identity, name, address }) => [identity, name, address.family])).toEqual([
    ['00:16:3e:aa:bb:cc', 'c1', 4],
    ['4026531840', 'c1', 6],
  ]);
  expect(serverDuid?.toString('hex')).toBe('000100012c1122330242ac110002');
});

it('says DHCPRELEASE for the card and its address, to the server that gave it', () => {
  const [lease] = parseLeaseFile(FILE).leases;
  const server = parseIp('10.1.0.1');
  if (!lease || !server) throw new Error('nothing was read');

  const message = release4(lease, server);

  expect(message?.subarray(0, 4).toString('hex')).toBe('01010600');
  expect(message?.subarray(12, 16).join('.')).toBe('10.1.0.7');
  expect(message?.subarray(28, 34).toString('hex')).toBe('00163eaabbcc');
  expect(message?.subarray(236).toString('hex')).toBe('6382536335010736040a010001ff');
  expect(release4({ ...lease, identity: '06-00:11' }, server)).toBeUndefined();
});

it('says Release for the association and its address, with both names', () => {
  const { leases, serverDuid } = parseLeaseFile(FILE);
  const lease = leases[1];
  if (!lease || !serverDuid) throw new Error('nothing was read');

  const message = release6(lease, serverDuid)?.toString('hex') ?? '';

  expect(message.slice(0, 2)).toBe('08');
  expect(message.slice(8)).toBe(
    '0001000a0003000100163eaabbcc' +
      '0002000e000100012c1122330242ac110002' +
      '00030028f00000000000000000000000' +
      '00050018fd00000000000000000000000000000700000000' +
      '00000000',
  );
  expect(release6({ ...lease, client: '*' }, serverDuid)).toBeUndefined();
});
