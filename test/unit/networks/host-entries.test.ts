// What DHCP and DNS are told of nics, and which of them cannot be told apart.
import { expect, it } from 'vitest';
import { entryLine, HostEntries, type HostEntry, ownerPrefix } from '#src/engine/networks/host-entries.ts';

const NAMED = { named: true };
const entry = (name: string, changes: Partial<HostEntry> = {}): HostEntry => ({
  project: 'default',
  name,
  device: 'eth0',
  vlan: '',
  hwaddr: `00:16:3e:00:00:${name.charCodeAt(0).toString(16)}`,
  ipv4: '',
  ipv6: '',
  ...changes,
});

it('says what is fixed, and the name where names are managed', () => {
  expect(entryLine(entry('a'), true)).toBe('00:16:3e:00:00:61,a');
  expect(entryLine(entry('a', { project: 'p' }), true)).toBe('00:16:3e:00:00:61,a.p');
  expect(entryLine(entry('a', { ipv4: '10.0.0.2', ipv6: 'fd00::2' }), false)).toBe(
    '00:16:3e:00:00:61,10.0.0.2,[fd00::2]',
  );
  expect(entryLine(entry('a'), false)).toBeUndefined();
  expect(entryLine(entry('a', { hwaddr: '' }), true)).toBeUndefined();
});

it('never takes the files of one instance for those of another', () => {
  const owners = [
    { project: 'default', name: 'p' },
    { project: 'p.x', name: 'c1' },
    { project: 'p', name: 'c1' },
    { project: 'default', name: 'c1' },
  ];

  const prefixes = owners.map(ownerPrefix);

  for (const one of prefixes) expect(prefixes.filter((other) => other.startsWith(one))).toEqual([one]);
});

it('replaces what an instance has, and says whether that is new', () => {
  const entries = new HostEntries();

  expect(entries.replace('n', entry('a'), [entry('a')], NAMED)).toBe(true);
  expect(entries.replace('n', entry('a'), [entry('a')], NAMED)).toBe(false);
  expect(entries.replace('n', entry('a'), [entry('a', { device: 'a-b/c' })], NAMED)).toBe(true);
  expect(entries.files('n', '').map(([file]) => file)).toEqual(['a.a--b-c']);
  expect(entries.replace('n', entry('a'), [], NAMED)).toBe(true);
  expect(entries.files('n', '')).toEqual([]);
});

it('tells of the first of two with the same address, name or MAC address', () => {
  const entries = new HostEntries();
  entries.replace('n', entry('a'), [entry('a', { ipv4: '10.0.0.2' })], NAMED);

  const ip = entry('b', { ipv4: '10.0.0.2' });
  expect(entries.conflict('n', ip, NAMED)).toBe('IP address "10.0.0.2" already defined on another NIC');
  expect(entries.conflict('n', entry('b', { hwaddr: '00:16:3e:00:00:61' }), NAMED)).toMatch(/^MAC address/u);
  expect(entries.conflict('n', entry('A'), NAMED)).toBe('Instance DNS name "a" already used on network');
  const second = entry('a', { device: 'eth1', hwaddr: '00:16:3e:00:00:99' });
  expect(entries.conflict('n', second, NAMED)).toBe('Instance DNS name "a" already used on network');
  expect(entries.conflict('n', second, { named: false })).toBeUndefined();
  expect(entries.conflict('n', { ...ip, vlan: '1' }, NAMED)).toBeUndefined();
  expect(entries.conflict('other', ip, NAMED)).toBeUndefined();
  entries.replace('n', ip, [ip], NAMED);
  expect(entries.files('n', 'b.')).toEqual([]);
});
