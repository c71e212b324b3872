// The server's configuration: keys that do something here, checked before they are stored and applied at once.
import { isPassword } from '../certificates/certificates.ts';
import { AppError } from '#src/lib/errors.ts';
import { KeyedLock } from '#src/lib/keyed-lock.ts';
import type { EngineContext } from '../context.ts';
import { parseBoolean, parseInteger } from '../instances/values.ts';
import type { ConfigMap } from '../types.ts';
import { type ListenAddress, parseAddress } from './address.ts';
import {
  type BooleanKey,
  type IntegerKey,
  type ServerKey,
  serverKey,
  SERVER_KEYS,
  type ServerKeyName,
  type TextKey,
} from './config-keys.ts';
import { endOf } from './expiry.ts';
import { proxyOf, type ProxySettings } from './proxy.ts';

const PASSWORD = 'core.trust_password';
const METRICS_PORT = 9100;

type Context = Pick<EngineContext, 'database' | 'events'>;

/** Applies a value that is not stored yet ('' is none); a rejection keeps the old one. */
export type ApplyValue = (value: string) => Promise<void> | void;

type ConfigValues = Readonly<Record<string, string | number | boolean>>;

export class ServerConfig {
  readonly #context: Context;
  readonly #environment: ProxySettings;
  readonly #appliers = new Map<string, ApplyValue>();
  readonly #locks = new KeyedLock();
  #known: ConfigMap | undefined;

  /** `environment`: proxies that hold while none is configured. */
  constructor(context: Context, environment: ProxySettings = { http: '', https: '', ignore: '' }) {
    this.#context = context;
    this.#environment = environment;
  }

  /** Called for each change of the key; one for each key. */
  onChange(key: ServerKeyName, apply: ApplyValue): void {
    this.#appliers.set(key, apply);
  }

  /** Called for each change of the address of the API. */
  onAddress(apply: (address: ListenAddress | undefined) => Promise<void>): void {
    this.onChange('core.https_address', (value) => apply(value === '' ? undefined : parseAddress(value)));
  }

  onMetricsAddress(apply: (address: ListenAddress | undefined) => Promise<void>): void {
    this.onChange('core.metrics_address', (value) =>
      apply(value === '' ? undefined : parseAddress(value, METRICS_PORT)),
    );
  }

  /** What is set, or the default, or ''. */
  text(key: TextKey): string {
    return this.#value(key);
  }

  flag(key: BooleanKey): boolean {
    return parseBoolean(this.#value(key));
  }

  number(key: IntegerKey): number {
    return parseInteger(this.#value(key));
  }

  #value(key: ServerKeyName): string {
    const { default: absent = '' }: ServerKey = SERVER_KEYS[key];
    return this.#stored()[key] ?? absent;
  }

  /** As clients see it: secrets are only said to be there, defaults not at all. */
  view(): Readonly<Record<string, string | boolean>> {
    const entries = Object.entries(this.#stored());
    return Object.fromEntries(entries.map(([key, value]) => [key, serverKey(key)?.isSecret === true ? true : value]));
  }

  listenAddress(): ListenAddress | undefined {
    const address = this.text('core.https_address');
    return address === '' ? undefined : parseAddress(address);
  }

  metricsAddress(): ListenAddress | undefined {
    const address = this.text('core.metrics_address');
    return address === '' ? undefined : parseAddress(address, METRICS_PORT);
  }

  /** The proxy through which `url` is fetched; undefined: none. Every download asks. */
  proxyFor(url: URL): URL | undefined {
    return proxyOf(url, {
      http: this.text('core.proxy_http') || this.#environment.http,
      https: this.text('core.proxy_https') || this.#environment.https,
      ignore: this.text('core.proxy_ignore_hosts') || this.#environment.ignore,
    });
  }

  /** When a trust token that is given out at `start` ends; undefined: with its use only. */
  tokenEnd(start: Date): Date | undefined {
    const span = this.text('core.remote_token_expiry');
    return span === '' ? undefined : endOf(span, start);
  }

  async isTrustPassword(password: string): Promise<boolean> {
    const stored = this.text(PASSWORD);
    return stored !== '' && password !== '' && isPassword(stored, password);
  }

  /** PUT: `values` are all there is; PATCH: they are changes. An empty text means the default. */
  update(values: ConfigValues, { replace = false } = {}): Promise<void> {
    return this.#locks.run('config', async () => {
      const old = this.#stored();
      const next = await this.#merged(replace ? {} : old, values);
      await this.#apply(old, next);
      this.#context.database.server.setConfig(next);
      this.#known = undefined;
      this.#context.events.lifecycle({ action: 'config-updated', source: '/1.0' });
    });
  }

  /** All or nothing: what was applied before one is refused gets its old value back. */
  async #apply(old: ConfigMap, next: ConfigMap): Promise<void> {
    const applied: (readonly [ApplyValue, string])[] = [];
    try {
      for (const [key, apply] of this.#appliers) {
        const [before = '', after = ''] = [old[key], next[key]];
        if (before === after) continue;
        await apply(after);
        applied.push([apply, before]);
      }
    } catch (error) {
      for (const [apply, before] of applied.toReversed()) await apply(before);
      throw error;
    }
  }

  async #merged(base: ConfigMap, values: ConfigValues): Promise<ConfigMap> {
    const next: Record<string, string> = { ...base };
    const complaints: string[] = [];
    for (const [key, value] of Object.entries(values).toSorted(([left], [right]) => (left < right ? -1 : 1))) {
      try {
        const stored = await this.#stores(key, value);
        if (stored === '' || stored === serverKey(key)?.default) delete next[key];
        else next[key] = stored;
      } catch (error) {
        complaints.push(complaint(key, value, error));
      }
    }
    const [first, ...others] = complaints;
    if (first === undefined) return next;
    throw new AppError('invalid', others.length === 0 ? first : `${first} (and ${others.length} more errors)`);
  }

  /** What is stored for a value; '' for none. */
  async #stores(name: string, said: ConfigValues[string]): Promise<string> {
    const value = String(said);
    if (name.startsWith('user.')) return value;
    const key = serverKey(name);
    if (!key) throw new AppError('invalid', 'unknown key');
    // Clients PUT back what they read: `true` is the secret that is set.
    if (key.isSecret === true && said === true) return this.#stored()[name] ?? '';
    return value === '' ? '' : checked(key, value);
  }

  /** Asked with every request. */
  #stored(): ConfigMap {
    this.#known ??= this.#context.database.server.config();
    return this.#known;
  }
}

function complaint(name: string, value: ConfigValues[string], error: unknown): string {
  const reason = error instanceof AppError ? error.message : 'invalid value';
  const shown = serverKey(name)?.isSecret === true ? '***' : String(value);
  return `cannot set '${name}' to '${shown}': ${reason}`;
}

async function checked(key: ServerKey, value: string): Promise<string> {
  if (key.type === 'boolean') return canonicalBoolean(value);
  if (key.type === 'integer' && !/^[+-]?\d+$/u.test(value)) throw new AppError('invalid', 'invalid integer');
  return key.check ? key.check(value) : value;
}

function canonicalBoolean(value: string): string {
  try {
    return String(parseBoolean(value));
  } catch (cause) {
    throw new AppError('invalid', 'invalid boolean', { cause });
  }
}
