// transport_url: driver://[user[:pass]@]host[:port][,…]/virtual_host[?opt=value&…] (section 1.1).
import { AppError } from '#src/lib/errors.ts';

export interface BrokerAddress {
  readonly host: string;
  readonly port: number;
  readonly username: string;
  readonly password: string;
}

export interface TransportUrl {
  readonly brokers: readonly [BrokerAddress, ...BrokerAddress[]];
  readonly virtualHost: string;
  /** Raw values over [oslo_messaging_rabbit]. */
  readonly overrides: Readonly<Record<string, string>>;
  /** Credentials are not inherited: some hosts have them and some do not, which is seldom meant. */
  readonly mixedCredentials: boolean;
}

const DEFAULT_PORT = 5672;
const LOCAL: BrokerAddress = { host: 'localhost', port: DEFAULT_PORT, username: 'guest', password: 'guest' };

/** Messages of its errors never hold the URL: it carries passwords. */
export function parseTransportUrl(url: string): TransportUrl {
  const match = /^([A-Za-z][\w+.-]*):\/\/([^/?#]*)(\/[^?#]*)?(?:\?([^#]*))?/.exec(url === '' ? 'rabbit://' : url);
  if (!match) throw new AppError('invalid', 'transport_url: not driver://[user:password@]host:port/virtual_host');
  const [, scheme = '', netloc = '', path = '', query = ''] = match;
  checkDriver(scheme);
  const hosts = netloc.split(',').filter((host) => host !== '');
  const [first = LOCAL, ...others] = hosts.map(parseHost);
  const withCredentials = hosts.filter((host) => /^[^@]*:.*@/.test(host)).length;
  return {
    brokers: [first, ...others],
    virtualHost: decode(path.slice(1)) || '/',
    overrides: parseQuery(query),
    mixedCredentials: withCredentials > 0 && withCredentials < hosts.length,
  };
}

function checkDriver(scheme: string): void {
  const [driver = ''] = scheme.split('+');
  if (driver.toLowerCase() === 'rabbit') return;
  throw new AppError('unsupported', `transport_url: driver '${driver}' is not supported, only rabbit://`);
}

function parseHost(text: string): BrokerAddress {
  const at = text.lastIndexOf('@');
  const [username = '', ...password] = at < 0 ? [] : text.slice(0, at).split(':');
  return {
    ...parseHostPort(text.slice(at + 1)),
    username: decode(username),
    password: decode(password.join(':')),
  };
}

function parseHostPort(text: string): { host: string; port: number } {
  const match = /^(?:\[([^\]]*)\]|([^:]*))(?::(\d*))?$/.exec(text);
  if (!match) throw new AppError('invalid', `transport_url: '${text}' is not host:port`);
  const [, ipv6, name, digits = ''] = match;
  const port = digits === '' ? DEFAULT_PORT : Number(digits);
  if (port > 65_535) throw new AppError('invalid', `transport_url: port ${port} of '${text}' is out of range`);
  return { host: ipv6 || name || LOCAL.host, port };
}

/** As urllib's unquote: what is no valid escape stays as it is. */
function decode(text: string): string {
  return text.replaceAll(/(?:%[0-9A-Fa-f]{2})+/g, (escapes) =>
    Buffer.from(escapes.replaceAll('%', ''), 'hex').toString(),
  );
}

function parseQuery(query: string): Record<string, string> {
  const overrides: Record<string, string> = {};
  for (const [key, value] of new URLSearchParams(query)) {
    overrides[key] = overrides[key] === undefined ? value : `${overrides[key]},${value}`;
  }
  return overrides;
}
