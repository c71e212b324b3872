// Checks of values of nic options, with LXD's words (lxd-engine-contract section 3.2).
import { messageOf } from '#src/lib/errors.ts';
import { firstOf, type IpFamily, ipText, parseIp, parseNetwork } from '#src/lib/ip.ts';
import { parseBitRate } from './bit-rate.ts';

/** What is wrong with the value; undefined: nothing. */
export type Check = (value: string) => string | undefined;

const INTERFACE_LIMIT = 15;
const MAX_VLAN = 4094;

function checkInterface(value: string): string | undefined {
  if (value.length < 1) return 'Network interface is too short (minimum 1 character)';
  if (value.length > INTERFACE_LIMIT) return `Network interface is too long (maximum ${INTERFACE_LIMIT} characters)`;
  if (value === '.' || value === '..') return `Network interface name cannot be "${value}"`;
  return /[^A-Za-z0-9_.:@-]/.test(value) ? 'Network interface contains invalid characters' : undefined;
}

function checkMac(value: string): string | undefined {
  const ok = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(value);
  return ok ? undefined : 'Invalid MAC address, must be 6 bytes of hex separated by colons';
}

function checkMtu(value: string): string | undefined {
  const mtu = Number(value);
  return /^\d+$/.test(value) && mtu >= 68 && mtu <= 65_535 ? undefined : `Invalid MTU "${value}"`;
}

function checkVlan(value: string): string | undefined {
  const vlan = Number(value);
  if (!/^\d+$/.test(value)) return `Invalid VLAN ID "${value}"`;
  return vlan >= 1 && vlan <= MAX_VLAN ? undefined : `Out of VLAN ID range (1-${MAX_VLAN}) "${value}"`;
}

export function checkBoolean(value: string): string | undefined {
  return /^(true|false|1|0|yes|no|on|off)$/i.test(value) ? undefined : `Invalid value for a boolean "${value}"`;
}

function checkRate(value: string): string | undefined {
  try {
    parseBitRate(value);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

const MAX_UINT32 = 0xffffffff;

export function checkUint32(value: string): string | undefined {
  const ok = /^\d+$/.test(value) && Number(value) <= MAX_UINT32;
  return ok ? undefined : `Invalid value for uint32 "${value}"`;
}

export const checkAddress =
  (family: IpFamily): Check =>
  (value) =>
    parseIp(value)?.family === family ? undefined : `Not an IPv${family} address "${value}"`;

const checkNetwork =
  (family: IpFamily): Check =>
  (value) => {
    const network = parseNetwork(value);
    if (!network) return `invalid CIDR address: ${value}`;
    if (network.address.family !== family) return `Not an IPv${family} network "${value}"`;
    const whole = ipText(firstOf(network)) === ipText(network.address);
    return whole ? undefined : `Not an IPv${family} network address "${value}"`;
  };

const orNone =
  (check: Check): Check =>
  (value) =>
    value === 'none' ? undefined : check(value);

/** Of what stands between commas. */
export const listOf =
  (check: Check): Check =>
  (value) => {
    for (const item of value.split(',').map((part) => part.trim())) {
      const complaint = check(item);
      if (complaint !== undefined) return `Item "${item}": ${complaint}`;
    }
    return undefined;
  };

/** Checks of the options ipv4.X and ipv6.X. */
export const bothFamilies = (option: string, check: (family: IpFamily) => Check): Readonly<Record<string, Check>> => {
  return { [`ipv4.${option}`]: check(4), [`ipv6.${option}`]: check(6) };
};

/** Of options that mean the same for every kind of nic. */
export const CHECKS: Readonly<Record<string, Check>> = {
  'limits.ingress': checkRate,
  'limits.egress': checkRate,
  'limits.max': checkRate,
  'security.mac_filtering': checkBoolean,
  'security.ipv4_filtering': checkBoolean,
  'security.ipv6_filtering': checkBoolean,
  'security.port_isolation': checkBoolean,
  'boot.priority': checkUint32,
  'queue.tx.length': checkUint32,
  ...bothFamilies('address', (family) => orNone(checkAddress(family))),
  ...bothFamilies('routes', (family) => listOf(checkNetwork(family))),
  ...bothFamilies('routes.external', (family) => listOf(checkNetwork(family))),
  parent: checkInterface,
  name: checkInterface,
  host_name: checkInterface,
  hwaddr: checkMac,
  mtu: checkMtu,
  vlan: checkVlan,
  gvrp: checkBoolean,
};
