// What values of network keys may be, in LXD's words. A check gives its complaint, or undefined.
import { firstOf, type IpFamily, parseIp, parseNetwork } from '#src/lib/ip.ts';

export type Check = (value: string) => string | undefined;

const INTERFACE_LIMIT = 15;

export const anything: Check = () => undefined;

export const boolean: Check = (value) =>
  /^(true|false|1|0|yes|no|on|off)$/i.test(value) ? undefined : `Invalid value for a boolean "${value}"`;

export function oneOf(...allowed: readonly string[]): Check {
  return (value) =>
    allowed.includes(value) ? undefined : `Invalid value "${value}" (not one of [${allowed.join(' ')}])`;
}

/** Without `item`: the complaint about an item is that about the list. */
export function listOf(check: Check, { item = true } = {}): Check {
  return (value) => {
    for (const part of value.split(',').map((text) => text.trim())) {
      const complaint = check(part);
      if (complaint !== undefined) return item ? `Item "${part}": ${complaint}` : complaint;
    }
    return undefined;
  };
}

/** Name of an interface, and of a network. */
export const interfaceName: Check = (value) => {
  if (value.length < 1) return 'Network interface is too short (minimum 1 character)';
  if (value.length > INTERFACE_LIMIT) return `Network interface is too long (maximum ${INTERFACE_LIMIT} characters)`;
  if (value === '.' || value === '..') return `Network interface name cannot be "${value}"`;
  return /[^A-Za-z0-9_.-]/.test(value) ? 'Network interface contains invalid characters' : undefined;
};

export const hwaddr: Check = (value) =>
  /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(value)
    ? undefined
    : 'Invalid MAC address, must be 6 bytes of hex separated by colons';

export function integer(minimum: number, maximum: number): Check {
  return (value) => {
    if (!/^\d+$/.test(value)) return `Invalid value for an integer "${value}"`;
    const inRange = Number(value) >= minimum && Number(value) <= maximum;
    return inRange ? undefined : `Value isn't within valid range. Must be between ${minimum} and ${maximum}`;
  };
}

export function mtu(minimum: number, maximum: number): Check {
  return (value) => {
    if (!/^\d+$/.test(value)) return `Invalid MTU "${value}"`;
    const inRange = Number(value) >= minimum && Number(value) <= maximum;
    return inRange ? undefined : `Out of MTU range (${minimum}-${maximum}) "${value}"`;
  };
}

export const vlan: Check = (value) => {
  if (!/^\d+$/.test(value)) return `Invalid VLAN ID "${value}"`;
  return Number(value) <= 4094 ? undefined : `Out of VLAN ID range (0-4094) "${value}"`;
};

export function address(family: IpFamily): Check {
  return (value) => (parseIp(value)?.family === family ? undefined : `Not an IPv${family} address "${value}"`);
}

export const anyAddress: Check = (value) => (parseIp(value) ? undefined : `Not an IP address "${value}"`);

/** Of the bridge itself: `auto`, `none`, or an address with the prefix of its network. */
export function ownAddress(family: IpFamily): Check {
  return (value) => {
    if (value === 'none' || value === 'auto') return undefined;
    const network = parseNetwork(value);
    if (!network) return `invalid CIDR address: ${value}`;
    if (network.address.family !== family) return `Not an IPv${family} address "${value}"`;
    const isUsable = firstOf(network).value !== network.address.value;
    return isUsable ? undefined : `Not a usable IPv${family} address "${value}"`;
  };
}

export function subnet(family: IpFamily): Check {
  return (value) => {
    const network = parseNetwork(value);
    if (!network) return `invalid CIDR address: ${value}`;
    if (network.address.family !== family) return `Not an IPv${family} network "${value}"`;
    const isNetwork = firstOf(network).value === network.address.value;
    return isNetwork ? undefined : `Not an IPv${family} network address "${value}"`;
  };
}

export function range(family: IpFamily): Check {
  return (value) => {
    const ends = value.split('-');
    if (ends.length !== 2) return 'IP range must contain start and end IP addresses';
    const isRange = ends.every((end) => parseIp(end)?.family === family);
    return isRange ? undefined : `Start or end is not an IPv${family} address`;
  };
}

/** What dnsmasq takes for the time of a lease. */
export const leaseTime: Check = (value) =>
  /^(\d{1,9}[smhdw]?|infinite)$/.test(value) ? undefined : `Invalid DHCP lease time "${value}"`;

export const domain: Check = (value) =>
  /^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?$/.test(value) ? undefined : `Invalid domain name "${value}"`;
