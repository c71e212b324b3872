// Addresses to listen on, as they are configured.
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { AppError } from '#src/lib/errors.ts';

const MAX_PORT = 65_535;

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** `10.0.0.1`, `::1`, `[::]:8443`, `:8443`, `host:8443`; without a port the default one. */
export function parseAddress(text: string, defaultPort = 8443): ListenAddress {
  if (isIP(text) !== 0) return { host: text, port: defaultPort };
  const match = /^(?:\[(?<v6>[^\]]+)\]|(?<name>[^:[\]]*))(?::(?<port>.*))?$/u.exec(text);
  if (!match?.groups) throw new AppError('invalid', 'not an address');
  const { v6, name = '', port } = match.groups;
  const host = v6 ?? (name === '' || name === '*' ? '::' : name);
  return { host, port: portOf(port, defaultPort) };
}

function portOf(text: string | undefined, defaultPort: number): number {
  return text === undefined || text === '' ? defaultPort : Number(text);
}

/** The address as it was said, if it can be listened on. */
export async function checkedListenAddress(text: string, defaultPort: number): Promise<string> {
  const { host, port } = parseAddress(text, defaultPort);
  if (isIP(host) === 0) {
    await lookup(host).catch((error: unknown) => {
      throw new AppError('invalid', `Couldn't resolve "${host}"`, { cause: error });
    });
  }
  if (!Number.isInteger(port) || port < 1 || port > MAX_PORT) throw new AppError('invalid', 'invalid port');
  return text;
}
