// The filters of `lighter list`: names, regular expressions on names, key=value pairs.
import { BlockList, isIP } from 'node:net';
import type { InstanceFull } from '#src/client/wire.ts';
import { AppError } from '#src/lib/errors.ts';

type Test = (instance: InstanceFull) => boolean;

const SHORTHANDS: Readonly<Record<string, (instance: InstanceFull) => string>> = {
  type: ({ type }) => type,
  status: ({ status }) => status,
  architecture: ({ architecture }) => architecture,
  location: ({ location }) => location,
};

/** Instances that satisfy all filters. */
export function filterInstances(
  instances: readonly InstanceFull[],
  filters: readonly string[],
): readonly InstanceFull[] {
  const tests = filters.map(testOf);
  return instances.filter((instance) => tests.every((test) => test(instance)));
}

function testOf(filter: string): Test {
  const at = filter.indexOf('=');
  if (at < 0) return byName(filter);
  const [key, value] = [filter.slice(0, at), filter.slice(at + 1)];
  const shorthand = SHORTHANDS[key];
  if (shorthand) {
    const wanted = value.toLowerCase().split(',');
    return (instance) => wanted.includes(shorthand(instance).toLowerCase());
  }
  if (key === 'ipv4' || key === 'ipv6') return hasAddress(value, key);
  const matches = wholePattern(value);
  return ({ expanded_config, config }) =>
    Object.entries(expanded_config ?? config).some(([name, text]) => abbreviates(key, name) && matches.test(text));
}

/** An address of the instance in one of these networks, divided by commas. */
function hasAddress(list: string, family: 'ipv4' | 'ipv6'): Test {
  const networks = new BlockList();
  for (const text of list.split(',')) addNetwork(networks, text, family);
  return ({ state }) =>
    Object.values(state?.network ?? {}).some(({ addresses }) =>
      (addresses ?? []).some(({ address }) => isIP(address) === IP[family] && networks.check(address, family)),
    );
}

const IP = { ipv4: 4, ipv6: 6 } as const;

function addNetwork(networks: BlockList, text: string, family: 'ipv4' | 'ipv6'): void {
  const [address = '', bits] = text.split('/');
  const limit = family === 'ipv4' ? 32 : 128;
  const prefix = bits === undefined ? limit : Number(bits);
  if (isIP(address) !== IP[family] || !Number.isInteger(prefix) || prefix < 0 || prefix > limit) {
    throw new AppError('invalid', `Not an address or network: ${text}`);
  }
  networks.addSubnet(address, prefix, family);
}

/** The beginning of a name, or a pattern for the whole of it. */
function byName(filter: string): Test {
  const whole = wholePattern(filter);
  return ({ name }) => name.startsWith(filter) || whole.test(name);
}

function wholePattern(text: string): RegExp {
  try {
    return new RegExp(`^(?:${text})$`, 'i');
  } catch (error) {
    throw new AppError('invalid', `Not a regular expression: ${text}`, { cause: error });
  }
}

/** `u.blah` for `user.blah`: each part may be cut. */
function abbreviates(short: string, long: string): boolean {
  const [shorts, longs] = [short.split('.'), long.split('.')];
  return shorts.length === longs.length && shorts.every((part, index) => longs[index]?.startsWith(part) === true);
}
