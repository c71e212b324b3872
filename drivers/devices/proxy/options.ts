// Options of a proxy device, with LXD's words (lxd-engine-contract section 3.2).
import { isIP, isIPv6 } from 'node:net';
import type { ForwardAddress, PortAddress } from '#src/host/forwarding/messages.ts';
import { AppError } from '#src/lib/errors.ts';
import { boolean, checkOptions, isTrue, type OptionCheck, textOf } from '../common/options.ts';

export type Config = Readonly<Record<string, string>>;

const MAX_PORT = 65_535;
/** Of sun_path, less its end. */
const MAX_UNIX_PATH = 107;

/** AppError 'invalid' with LXD's words. */
export function parseAddress(text: string): ForwardAddress {
  const at = text.indexOf(':');
  const kind = at < 0 ? text : text.slice(0, at);
  const rest = at < 0 ? '' : text.slice(at + 1);
  if (kind !== 'tcp' && kind !== 'udp' && kind !== 'unix') {
    throw new AppError('invalid', `Unknown protocol type "${kind}"`);
  }
  if (rest === '') throw new AppError('invalid', 'Missing address');
  return kind === 'unix' ? unixAddress(rest) : portAddress(kind, rest);
}

function unixAddress(text: string): ForwardAddress {
  const abstract = text.startsWith('@');
  const path = abstract ? text.slice(1) : text;
  if (path === '' || path.includes('\0') || Buffer.byteLength(path) > MAX_UNIX_PATH) {
    throw new AppError('invalid', `Invalid Unix socket path "${text}"`);
  }
  return { kind: 'unix', path: abstract || path.startsWith('/') ? path : `/${path}`, abstract };
}

function portAddress(kind: PortAddress['kind'], text: string): PortAddress {
  const { host, ports } = splitHostPort(text);
  if (host !== '' && (isIP(host) === 0 || host.includes('%'))) {
    throw new AppError('invalid', `Not an IP address "${host}"`);
  }
  return { kind, address: host, ports: ports.split(',').flatMap(parsePorts) };
}

/** As Go does it: `1.2.3.4:80`, `[::1]:80`, `:80`. */
function splitHostPort(text: string): { readonly host: string; readonly ports: string } {
  const complain = (what: string): never => {
    throw new AppError('invalid', `address ${text}: ${what}`);
  };
  const bracketed = /^\[([^\]]*)\](?::(.*))?$/s.exec(text);
  if (bracketed) return { host: bracketed[1] ?? '', ports: bracketed[2] ?? complain('missing port in address') };
  const at = text.lastIndexOf(':');
  if (at < 0) return complain('missing port in address');
  const host = text.slice(0, at);
  return host.includes(':') ? complain('too many colons in address') : { host, ports: text.slice(at + 1) };
}

function parsePorts(text: string): readonly number[] {
  const [first = '', last, ...more] = text.split('-');
  if (more.length > 0) throw new AppError('invalid', `Invalid port range "${text}"`);
  const from = parsePort(first);
  if (last === undefined) return [from];
  const to = parsePort(last);
  if (from >= to) throw new AppError('invalid', 'End port should be higher than start port');
  return Array.from({ length: to - from + 1 }, (_, index) => from + index);
}

function parsePort(text: string): number {
  if (!/^\d+$/.test(text)) {
    throw new AppError('invalid', `strconv.ParseInt: parsing ${JSON.stringify(text)}: invalid syntax`);
  }
  const port = Number(text);
  if (port < 1 || port > MAX_PORT) throw new AppError('invalid', `Invalid port number "${text}"`);
  return port;
}

const address: OptionCheck = (value) => void parseAddress(value);
const octalMode: OptionCheck = (value) => {
  if (!/^[0-7]{1,4}$/.test(value)) throw new AppError('invalid', 'Invalid value for an octal file mode');
};
const unixId: OptionCheck = (value) => {
  if (!/^\d{1,10}$/.test(value) || Number(value) >= 2 ** 32 - 1) {
    throw new AppError('invalid', 'Invalid value for a UNIX ID');
  }
};
const BINDS = ['host', 'instance', 'guest', 'container'];
const bind: OptionCheck = (value) => {
  if (!BINDS.includes(value)) {
    throw new AppError('invalid', 'Invalid binding side given. Must be "host" or "instance"');
  }
};

const CHECKS = {
  listen: address,
  connect: address,
  bind,
  mode: octalMode,
  uid: unixId,
  gid: unixId,
  'security.uid': unixId,
  'security.gid': unixId,
  nat: boolean,
  proxy_protocol: boolean,
};

export function validate(config: Config): void {
  for (const option of ['listen', 'connect']) {
    if (textOf(config, option) !== '') continue;
    throw new AppError('invalid', `Invalid value for device option "${option}": Unknown protocol type ""`);
  }
  checkOptions(config, CHECKS);
  const listen = parseAddress(textOf(config, 'listen'));
  const connect = parseAddress(textOf(config, 'connect'));
  const [from, to] = [portsOf(listen), portsOf(connect)];
  if (to > from || (to > 1 && to !== from)) {
    throw new AppError('invalid', 'Mismatch between listen port(s) and connect port(s) count');
  }
  checkHeader(config, connect);
  checkFile(config, listen);
  if (isTrue(config, 'nat')) checkNat(config, listen, connect);
}

function checkHeader(config: Config, connect: ForwardAddress): void {
  if (!isTrue(config, 'proxy_protocol') || (connect.kind === 'tcp' && !isTrue(config, 'nat'))) return;
  throw new AppError('invalid', 'The PROXY header can only be sent to tcp servers in non-nat mode');
}

function checkFile(config: Config, listen: ForwardAddress): void {
  if (listen.kind === 'unix' && !listen.abstract) return;
  if (['uid', 'gid', 'mode'].every((option) => textOf(config, option) === '')) return;
  const text = 'Only proxy devices for non-abstract unix sockets can carry uid, gid, or mode properties';
  throw new AppError('invalid', text);
}

function portsOf(one: ForwardAddress): number {
  return one.kind === 'unix' ? 1 : one.ports.length;
}

function checkNat(config: Config, listen: ForwardAddress, connect: ForwardAddress): void {
  if (!isOnHost(config)) throw new AppError('invalid', 'Only host-bound proxies can use NAT');
  if (listen.kind === 'unix' || connect.kind === 'unix' || listen.kind !== connect.kind) {
    const text = `Proxying ${listen.kind} <-> ${connect.kind} is not supported when using NAT`;
    throw new AppError('invalid', text);
  }
  if (isWildcard(listen.address) && listen.address !== '') {
    throw new AppError('invalid', `Cannot listen on wildcard address "${listen.address}" when in nat mode`);
  }
  if (listen.address === '' || isIPv6(listen.address) !== isIPv6(connect.address)) {
    throw new AppError('invalid', 'Cannot mix IP versions between listen and connect in nat mode');
  }
}

export function isWildcard(one: string): boolean {
  return one === '' || /^[0.:]+$/.test(one);
}

/** Whether it listens on the host. */
export function isOnHost(config: Config): boolean {
  return ['', 'host'].includes(textOf(config, 'bind'));
}
