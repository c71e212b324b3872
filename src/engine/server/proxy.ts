// The proxy of an outgoing request: what is configured, or else what the environment of the daemon says.
import { isIP } from 'node:net';
import { listed } from './config-keys.ts';

export interface ProxySettings {
  readonly http: string;
  readonly https: string;
  /** Hosts that are reached without it: names, .domains, addresses, `*`. */
  readonly ignore: string;
}

/** Undefined: straight to the server. */
export function proxyOf(url: URL, { http, https, ignore }: ProxySettings): URL | undefined {
  const proxy = url.protocol === 'https:' ? https : http;
  if (proxy === '' || listed(ignore).some((pattern) => isIgnored(url, pattern))) return undefined;
  const host = url.hostname.replaceAll(/[[\]]/gu, '');
  if (host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'))) return undefined;
  return new URL(proxy.includes('://') ? proxy : `http://${proxy}`);
}

function isIgnored({ hostname, host }: URL, pattern: string): boolean {
  if (pattern === '*' || pattern === hostname || pattern === host) return true;
  const domain = pattern.replace(/^\*?\.?/u, '.');
  return hostname.endsWith(domain) && isIP(hostname) === 0;
}

/** As programs take it from their environment. */
export function proxyFromEnvironment(environment: Readonly<Record<string, string | undefined>>): ProxySettings {
  const value = (name: string) => environment[name.toLowerCase()] ?? environment[name] ?? '';
  return { http: value('HTTP_PROXY'), https: value('HTTPS_PROXY'), ignore: value('NO_PROXY') };
}
