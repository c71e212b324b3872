// Every key of the server's configuration that has an effect here: its type, its default and what its value may be
// (lxd-engine-contract section 3.5). A key that is not in the table is refused as unknown.
import { isIP } from 'node:net';
import { basename, isAbsolute } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import { hashPassword } from '../certificates/certificates.ts';
import { parseCompression } from '../images/compression.ts';
import { architectureName } from '../images/metadata.ts';
import { checkedListenAddress } from './address.ts';
import { endOf } from './expiry.ts';

export interface ServerKey {
  readonly type: 'text' | 'boolean' | 'integer';
  /** What holds while nothing is set; not shown. */
  readonly default?: string;
  /** Rejects what the value may not be; resolves to what is stored for it. Never called with an empty value. */
  readonly check?: (value: string) => string | Promise<string>;
  /** Clients are only told that it is set. */
  readonly isSecret?: boolean;
}

const HTTPS_PORT = 8443;
const METRICS_PORT = 9100;

export const SERVER_KEYS = {
  'core.https_address': { type: 'text', check: (value) => checkedListenAddress(value, HTTPS_PORT) },
  'core.https_allowed_credentials': { type: 'boolean' },
  'core.https_allowed_headers': { type: 'text' },
  'core.https_allowed_methods': { type: 'text' },
  'core.https_allowed_origin': { type: 'text' },
  'core.https_trusted_proxy': { type: 'text', check: addresses },
  'core.metrics_address': { type: 'text', check: (value) => checkedListenAddress(value, METRICS_PORT) },
  'core.metrics_authentication': { type: 'boolean', default: 'true' },
  'core.proxy_http': { type: 'text', check: proxyUrl },
  'core.proxy_https': { type: 'text', check: proxyUrl },
  'core.proxy_ignore_hosts': { type: 'text' },
  'core.remote_token_expiry': { type: 'text', check: span },
  'core.shutdown_timeout': { type: 'integer', default: '5', check: notNegative },
  'core.trust_ca_certificates': { type: 'boolean' },
  'core.trust_password': { type: 'text', check: hashPassword, isSecret: true },
  'backups.compression_algorithm': { type: 'text', default: 'gzip', check: compression },
  'images.auto_update_cached': { type: 'boolean', default: 'true' },
  'images.auto_update_interval': { type: 'integer', default: '6' },
  'images.compression_algorithm': { type: 'text', default: 'gzip', check: compression },
  'images.default_architecture': { type: 'text', check: architecture },
  'images.remote_cache_expiry': { type: 'integer', default: '10' },
  'lighter.criu.path': { type: 'text', check: criuPath },
  'storage.backups_volume': { type: 'text' },
  'storage.images_volume': { type: 'text' },
} as const satisfies Readonly<Record<string, ServerKey>>;

export type ServerKeyName = keyof typeof SERVER_KEYS;
type OfType<Type> = {
  [Key in ServerKeyName]: (typeof SERVER_KEYS)[Key]['type'] extends Type ? Key : never;
}[ServerKeyName];
export type TextKey = OfType<'text'>;
export type BooleanKey = OfType<'boolean'>;
export type IntegerKey = OfType<'integer'>;

/** Undefined: unknown. */
export function serverKey(name: string): ServerKey | undefined {
  return Object.hasOwn(SERVER_KEYS, name) ? SERVER_KEYS[name as ServerKeyName] : undefined;
}

function span(text: string): string {
  endOf(text, new Date());
  return text;
}

function notNegative(text: string): string {
  if (text.startsWith('-')) throw new AppError('invalid', 'invalid value');
  return text;
}

function addresses(list: string): string {
  const bad = listed(list).find((address) => isIP(address) === 0);
  if (bad !== undefined) throw new AppError('invalid', `Not an IP address "${bad}"`);
  return list;
}

function proxyUrl(text: string): string {
  const url = URL.parse(text.includes('://') ? text : `http://${text}`);
  if (url && ['http:', 'https:'].includes(url.protocol) && url.hostname !== '') return text;
  throw new AppError('invalid', 'not the URL of an HTTP proxy');
}

function compression(text: string): string {
  parseCompression(text);
  return text;
}

function architecture(name: string): string {
  if (architectureName(name) === undefined) throw new AppError('invalid', `Architecture isn't supported: ${name}`);
  return name;
}

/** liblxc looks for the program by that name. */
function criuPath(path: string): string {
  if (isAbsolute(path) && basename(path) === 'criu') return path;
  throw new AppError('invalid', 'not an absolute path of a program called "criu"');
}

/** Items between commas and blanks. */
export function listed(text: string): readonly string[] {
  return text.split(/[,\s]+/u).filter((item) => item !== '');
}
