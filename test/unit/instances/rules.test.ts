// What configurations and devices may say, in LXD's words (recorded from LXD 5.0.2).
import { describe, expect, it } from 'vitest';
import { deviceDrivers } from '#drivers/devices/registry.ts';
import { nicDrivers } from '#drivers/nic/registry.ts';
import { validateRawConfig } from '#drivers/runtime/lxc/raw-config.ts';
import { createRules, validateExpanded } from '#src/engine/instances/config-rules.ts';
import { rootDisk } from '#src/engine/instances/disks.ts';
import { generateInstanceName, validateInstanceName } from '#src/engine/instances/names.ts';
import { silentLog } from '#src/lib/log.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';
import { noNetworks } from '#test/fakes/no-networks.ts';

const context = { host: new FakeHost(), log: silentLog };
const nics = Object.fromEntries(Object.entries(nicDrivers).map(([name, module]) => [name, module.create(context)]));
const forwards = { add: async () => undefined, remove: async () => undefined };
const deviceContext = { ...context, forwards, devicesPath: '/nowhere', homesPath: '/nowhere', servedPath: '/nowhere' };
const drivers = Object.fromEntries(
  Object.entries(deviceDrivers).map(([name, module]) => [name, module.create(deviceContext)]),
);
const parts = { networks: noNetworks, nics, devices: drivers, validateRaw: validateRawConfig };
const rules = createRules({ ...parts, unprivilegedOnly: false });
const config = (settings: Record<string, string>, profile = false) => rules.validateConfig(settings, { profile });
const devices = (all: Record<string, Record<string, string>>) =>
  rules.validateDevices(all, { profile: false, project: 'default' });

it('lets users note what they like on devices', () => {
  const root = { type: 'disk', path: '/', pool: 'default', 'user.foo': 'bar' };
  const disk = { type: 'disk', path: '/x', source: '/', 'user.foo': 'bar' };
  const nic = { type: 'nic', nictype: 'p2p', name: 'eth0', 'user.foo': 'bar' };

  expect(() => devices({ root, disk, nic })).not.toThrow();
  expect(() => devices({ disk: { ...disk, foo: 'bar' } })).toThrow('Invalid device option "foo"');
  expect(() => devices({ nic: { ...nic, foo: 'bar' } })).toThrow('Invalid device option "foo"');
});

it('lets the root of an instance be a disk of instances, not of profiles', () => {
  const old = { type: 'disk', pool: 'default', source: 'container/c1', path: '/mnt/old' };

  expect(() => devices({ old })).not.toThrow();
  expect(() => rules.validateDevices({ old }, { profile: true, project: 'default' })).toThrow('not of a profile');
});

describe('of a daemon for unprivileged containers only', () => {
  const strict = createRules({ ...parts, unprivilegedOnly: true });

  it.each([
    [{ 'security.privileged': 'true' }, 'LXD was configured to only allow unprivileged containers'],
    [{ 'raw.idmap': 'both 0 1000' }, 'Cannot map root user into container'],
    [{ 'raw.idmap': 'uid 0-10 0-10' }, 'Cannot map root user into container'],
    [{ 'raw.lxc': 'lxc.idmap=' }, "lxc.idmap can't be set in raw.lxc"],
    [{ 'raw.lxc': 'lxc.tty.max = 2\n LXC.Include = /tmp/x' }, "LXC.Include can't be set in raw.lxc"],
  ])('%j is refused, in instances and in profiles', (settings, message) => {
    for (const profile of [false, true]) {
      expect(() => strict.validateConfig(settings, { profile })).toThrow(message);
      rules.validateConfig(settings, { profile });
    }
  });

  it('takes what gives no root away', () => {
    const settings = { 'security.privileged': 'false', 'raw.idmap': 'both 1000 1000', 'raw.lxc': 'lxc.tty.max = 2' };

    expect(() => strict.validateConfig(settings, { profile: false })).not.toThrow();
  });
});

describe('configuration keys', () => {
  it('takes what backups of later releases of LXD have', () => {
    expect(() => config({ 'volatile.uuid.generation': 'b7a5c5a8-3f4e-4a4b-9a64-0d0a9a9d4a11' })).not.toThrow();
  });

  it('lets be what this server cannot do when it is not wanted', () => {
    config({ 'security.syscalls.intercept.mount': 'false', 'nvidia.runtime': '' });

    expect(() => config({ 'security.syscalls.intercept.mount': 'true' })).toThrow('not supported by this server');
  });

  it.each([
    ['limits.nope', '1', 'Unknown configuration key: limits.nope'],
    ['user.', '1', 'Unknown configuration key: user.'],
    ['volatile.foo', '1', 'Unknown configuration key: volatile.foo'],
    ['raw.qemu', 'x', 'Unknown configuration key: raw.qemu'],
    ['limits.memory', '0', "Memory limit can't be 0"],
    ['limits.memory', 'xx', 'Invalid value: xx'],
    ['limits.cpu', 'x', 'Invalid CPU limit syntax'],
    ['limits.cpu.allowance', 'x', 'Invalid allowance: x'],
    ['limits.processes', 'x', 'Invalid value for an integer "x"'],
    ['limits.memory.enforce', 'x', 'Invalid value "x" (not one of [soft hard])'],
    ['cluster.evacuate', 'z', 'Invalid value "z" (not one of [auto migrate live-migrate stop])'],
    ['security.nesting', 'foo', 'Invalid value for a boolean "foo"'],
    ['security.idmap.size', 'x', 'Invalid value for uint32 "x": strconv.ParseUint: parsing "x": invalid syntax'],
    ['snapshots.expiry', 'foo', 'Invalid expiry expression'],
    ['snapshots.schedule', 'foo', 'Schedule must be of the form: <minute> <hour> <day-of-month> <month> <day-of-week>'],
    ['raw.lxc', 'foo', 'Invalid raw.lxc line: foo'],
    ['raw.lxc', 'lxc.ephemeral = 1', 'Setting lxc.ephemeral is not allowed'],
    ['raw.lxc', 'lxc.net.0.link = br0', 'Only interface-specific ipv4/ipv6 lxc.net.* keys are allowed'],
    ['nvidia.runtime', 'true', 'nvidia.runtime is not supported by this server'],
  ])('refuses %s=%s', (key, value, text) => {
    expect(() => config({ [key]: value })).toThrow(text);
  });

  it('accepts the free namespaces, empty values and what LXD accepts', () => {
    config({
      'user.anything': 'x',
      'image.os': 'debian',
      'environment.FOO': 'bar',
      'limits.kernel.nofile': '1000:2000',
      'linux.sysctl.net.ipv4.ip_forward': '1',
      'limits.memory': '',
      'limits.cpu': '0-1,3',
      'snapshots.schedule': '@daily, 0 6 * * *',
      'raw.lxc': '# a comment\nlxc.cap.drop = sys_admin\n\nlxc.net.0.ipv4.address = 10.0.0.2/24',
      'volatile.eth0.hwaddr': '00:16:3e:00:00:01',
    });
  });

  it('keeps what belongs to an instance out of profiles', () => {
    expect(() => config({ 'volatile.uuid': 'x' }, true)).toThrow('Volatile keys can only be set on instances');
    expect(() => config({ 'image.os': 'x' }, true)).toThrow('Image keys can only be set on instances');
  });

  it('refuses lists of system calls that contradict each other', () => {
    const both = { 'security.syscalls.allow': 'read', 'security.syscalls.deny': 'write' };

    expect(() => config(both)).toThrow('security.syscalls.allow is mutually exclusive with security.syscalls.deny*');
  });
});

describe('devices', () => {
  it.each([
    [{ type: 'nic', nictype: 'physical' }, 'Invalid value for device option "parent": Required value'],
    [{ type: 'nic', nictype: 'physical', parent: 'x', foo: 'bar' }, 'Invalid device option "foo"'],
    [{ type: 'nic', nictype: 'zzz', parent: 'x' }, 'Failed loading device "e0": Unsupported device type'],
    [{ type: 'nic', parent: 'x' }, 'Failed loading device "e0": Unsupported device type'],
    [{ type: 'foo' }, 'Failed loading device "e0": Unsupported device type'],
    [
      { type: 'nic', nictype: 'p2p', hwaddr: 'zz' },
      'Invalid value for device option "hwaddr": Invalid MAC address, must be 6 bytes of hex separated by colons',
    ],
    [{ type: 'nic', nictype: 'p2p', mtu: 'zz' }, 'Invalid value for device option "mtu": Invalid MTU "zz"'],
    [
      { type: 'nic', nictype: 'p2p', name: 'waytoolonginterfacename' },
      'Invalid value for device option "name": Network interface is too long (maximum 15 characters)',
    ],
    [{ type: 'disk', path: '/x' }, 'Disk entry is missing the required "source" or "path" property'],
    [{ type: 'disk', path: '/x', source: '/s', foo: 'bar' }, 'Invalid device option "foo"'],
    [{ type: 'disk', path: '/../x', source: '/s' }, 'Invalid value for device option "path": /../x'],
    [
      { type: 'disk', path: '/x', source: '/s', propagation: 'sideways' },
      'Invalid value for device option "propagation": Invalid value "sideways"',
    ],
    [{ type: 'disk', path: '/x', source: '/s', size: '1GB' }, 'Only the root disk may have a size quota'],
    [
      { type: 'disk', path: '/x', source: '/s', recursive: 'true', readonly: 'true' },
      "Recursive read-only bind-mounts aren't currently supported by the kernel",
    ],
    [
      { type: 'disk', path: '/', pool: 'p', 'limits.read': '30Iops' },
      'Invalid value for device option "limits.read": Invalid value: 30Iops',
    ],
    [{ type: 'unix-char', mode: '0660' }, 'Unix device entry is missing the required "source" or "path" property'],
    [
      { type: 'unix-char', path: '/dev/x', mode: '999' },
      'Invalid value for device option "mode": Invalid value for octal file mode "999"',
    ],
    [{ type: 'disk', path: '/', pool: 'p', size: 'xx' }, 'Invalid value for device option "size": Invalid value: xx'],
  ])('refuses %o', (device, text) => {
    const found = Object.fromEntries(Object.entries(device).filter(([, value]) => value !== undefined));

    expect(() => devices({ e0: found })).toThrow(`Device validation failed for "e0": ${text}`);
  });

  it('accepts nics of all drivers, disks and masks', () => {
    devices({
      a: { type: 'nic', nictype: 'physical', parent: 'tap0', name: 'eth0', hwaddr: '00:16:3e:aa:bb:cc', mtu: '1450' },
      b: { type: 'nic', nictype: 'bridged', parent: 'br0' },
      c: { type: 'nic', nictype: 'p2p' },
      d: { type: 'nic', nictype: 'macvlan', parent: 'eth0', vlan: '10' },
      root: { type: 'disk', path: '/', pool: 'default', size: '10GB' },
      data: { type: 'disk', path: '/srv', source: '/data', readonly: 'true', propagation: 'rslave' },
      gone: { type: 'none' },
    });
  });

  it('finds the root disk, one and only one', () => {
    const root = { type: 'disk', path: '/', pool: 'default', size: '1GiB' };

    expect(rootDisk({ root })).toEqual({ device: 'root', pool: 'default', sizeBytes: 1_073_741_824 });
    expect(() => rootDisk({})).toThrow('No root device could be found');
    expect(() => rootDisk({ root, other: root })).toThrow('More than one root device found');
  });

  it('refuses two nics of one name', () => {
    const nic = { type: 'nic', nictype: 'p2p', name: 'eth0' };

    expect(() => validateExpanded({ a: nic, b: nic })).toThrow('Duplicate NIC name "eth0"');
  });

  it('refuses two disks on one path', () => {
    const disk = { type: 'disk', source: '/data', path: '/srv' };

    expect(() => validateExpanded({ a: disk, b: { ...disk, path: 'srv/' } })).toThrow(
      'More than one disk device uses the same path',
    );
  });
});

it('lets a profile have one disk on a path, also one root', () => {
  const profile = (all: Record<string, Record<string, string>>) =>
    rules.validateDevices(all, { profile: true, project: 'default' });
  const root = { type: 'disk', path: '/', pool: 'default' };

  expect(() => profile({ root, data: { type: 'disk', path: '/srv', source: '/data' } })).not.toThrow();
  expect(() => profile({ root, other: { ...root, pool: 'elsewhere' } })).toThrow(
    'Device validation failed for "root": More than one disk device uses the same path "/"',
  );
});

describe('names', () => {
  it.each([
    ['1a', 'Invalid instance name: Name must not start with a number'],
    ['a_b', 'Invalid instance name: Name can only contain alphanumeric and hyphen characters'],
    ['a/b', 'The character "/" is reserved for snapshots'],
    ['-ab', 'Invalid instance name: Name must not start with "-" character'],
    ['ab-', 'Invalid instance name: Name must not end with "-" character'],
    ['a'.repeat(64), 'Invalid instance name: Name must be 1-63 characters long'],
  ])('refuses %s', (name, text) => {
    expect(() => validateInstanceName(name)).toThrow(text);
  });

  it('makes up names that are free and valid', () => {
    const taken = new Set<string>();
    for (let count = 0; count < 50; count++) {
      const name = generateInstanceName((candidate) => taken.has(candidate));
      validateInstanceName(name);
      expect(taken.has(name)).toBe(false);
      taken.add(name);
    }
  });
});
