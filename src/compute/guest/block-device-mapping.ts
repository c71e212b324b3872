// EC2's names of an instance's block devices, as Nova makes them up (appendix E.5).
import type { NovaObject } from '#src/nova/objects/object.ts';

type Mapping = Readonly<Record<string, string | null>>;

const OF_NO_ROOT: Mapping = { ami: 'sda1', ephemeral0: 'sda2', root: '/dev/sda1', swap: 'sda3' };

export function blockDeviceMapping(
  instance: NovaObject<'Instance'>,
  devices: readonly NovaObject<'BlockDeviceMapping'>[],
): Mapping {
  const root = instance.find('root_device_name') ?? null;
  if (root === null) return OF_NO_ROOT;
  const named = (list: typeof devices) => list.map((device) => device.find('device_name') ?? null);
  const numbered = (prefix: string, names: readonly (string | null)[]) =>
    Object.fromEntries(names.map((name, index) => [`${prefix}${index}`, name]));
  const volumes = devices.filter((device) => device.find('destination_type') === 'volume');
  const blanks = devices.filter((device) => !volumes.includes(device) && device.find('source_type') === 'blank');
  const swap = blanks.filter((device) => device.find('guest_format') === 'swap').at(-1);
  return {
    ami: root.replace(/^\/dev\//, ''),
    root,
    ...given({
      ephemeral0: instance.find('default_ephemeral_device'),
      swap: swap?.find('device_name') ?? instance.find('default_swap_device'),
    }),
    ...numbered(
      'ebs',
      named(volumes).toSorted((left, right) => (left ?? '').localeCompare(right ?? '')),
    ),
    ...numbered('ephemeral', named(blanks.filter((device) => device.find('guest_format') !== 'swap'))),
  };
}

function given(values: Readonly<Record<string, string | null | undefined>>): Mapping {
  return Object.fromEntries(Object.entries(values).flatMap(([key, value]) => (value ? [[key, value]] : [])));
}
