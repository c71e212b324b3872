// [oslo_messaging_rabbit]: every option of oslo.messaging's rabbit driver (Zed to 2026.2) with type, default and range.
/* oxlint-disable max-lines -- a data table */
import { AppError } from '#src/lib/errors.ts';

export type OptionType = 'bool' | 'int' | 'float' | 'string';

export interface RabbitOptionSpec {
  readonly type: OptionType;
  readonly default: boolean | number | string;
  readonly min?: number;
  readonly max?: number;
  readonly choices?: readonly string[];
  /** Older names of the same option, in the same section. */
  readonly deprecatedNames?: readonly string[];
  /** Accepted because neighbours share the file, but there is nothing it could change here: why. */
  readonly noEffect?: string;
}

const POOL = 'one pipelined connection sends everything; there is no pool';

/** Names as operators know them; '' stands for oslo's None. */
export const rabbitOptionSpecs = {
  amqp_durable_queues: { type: 'bool', default: false },
  amqp_auto_delete: { type: 'bool', default: false },
  rpc_conn_pool_size: { type: 'int', default: 30, min: 1, noEffect: POOL },
  conn_pool_min_size: { type: 'int', default: 2, noEffect: POOL },
  conn_pool_ttl: { type: 'int', default: 1200, noEffect: POOL },
  ssl: { type: 'bool', default: false, deprecatedNames: ['rabbit_use_ssl'] },
  ssl_version: { type: 'string', default: '', deprecatedNames: ['kombu_ssl_version'] },
  ssl_key_file: { type: 'string', default: '', deprecatedNames: ['kombu_ssl_keyfile'] },
  ssl_cert_file: { type: 'string', default: '', deprecatedNames: ['kombu_ssl_certfile'] },
  ssl_ca_file: { type: 'string', default: '', deprecatedNames: ['kombu_ssl_ca_certs'] },
  ssl_enforce_hostname_verification: { type: 'bool', default: false },
  ssl_enforce_fips_mode: { type: 'bool', default: false },
  heartbeat_in_pthread: { type: 'bool', default: false, noEffect: 'heartbeats never share a thread with work' },
  kombu_reconnect_delay: { type: 'float', default: 1, min: 0, max: 4.5 },
  kombu_reconnect_splay: { type: 'float', default: 0, min: 0 },
  kombu_compression: { type: 'string', default: '', choices: ['', 'gzip', 'bz2'] },
  kombu_missing_consumer_retry_timeout: {
    type: 'int',
    default: 60,
    min: 0,
    deprecatedNames: ['kombu_reconnect_timeout'],
  },
  kombu_failover_strategy: { type: 'string', default: 'round-robin', choices: ['round-robin', 'shuffle'] },
  rabbit_login_method: {
    type: 'string',
    default: 'AMQPLAIN',
    choices: ['PLAIN', 'AMQPLAIN', 'EXTERNAL', 'RABBIT-CR-DEMO'],
  },
  rabbit_retry_interval: { type: 'int', default: 1, min: 0 },
  rabbit_retry_backoff: { type: 'int', default: 2, min: 0 },
  rabbit_interval_max: { type: 'int', default: 30, min: 1 },
  rabbit_ha_queues: { type: 'bool', default: false },
  rabbit_quorum_queue: { type: 'bool', default: false },
  rabbit_transient_quorum_queue: { type: 'bool', default: false },
  rabbit_quorum_delivery_limit: { type: 'int', default: 0, min: 0 },
  rabbit_quorum_max_memory_length: {
    type: 'int',
    default: 0,
    min: 0,
    deprecatedNames: ['rabbit_quroum_max_memory_length'],
  },
  rabbit_quorum_max_memory_bytes: {
    type: 'int',
    default: 0,
    min: 0,
    deprecatedNames: ['rabbit_quroum_max_memory_bytes'],
  },
  rabbit_transient_queues_ttl: { type: 'int', default: 1800, min: 0 },
  rabbit_qos_prefetch_count: { type: 'int', default: 0, min: 0, max: 65_535 },
  heartbeat_timeout_threshold: { type: 'int', default: 60, min: 0, max: 65_535 },
  heartbeat_rate: { type: 'int', default: 3, min: 1 },
  direct_mandatory_flag: {
    type: 'bool',
    default: true,
    noEffect: 'replies are always mandatory, as in oslo.messaging',
  },
  enable_cancel_on_failover: { type: 'bool', default: false },
  use_queue_manager: { type: 'bool', default: false },
  hostname: { type: 'string', default: '' },
  processname: { type: 'string', default: '' },
  rabbit_stream_fanout: { type: 'bool', default: false },
} as const satisfies Record<string, RabbitOptionSpec>;

type Specs = typeof rabbitOptionSpecs;
interface TypeMap {
  bool: boolean;
  int: number;
  float: number;
  string: string;
}
export type RabbitOptionName = keyof Specs;
export type RabbitOptions = { readonly [K in RabbitOptionName]: TypeMap[Specs[K]['type']] };

/** The table as rows, for a configuration loader. */
export const rabbitOptions: readonly (RabbitOptionSpec & { readonly name: RabbitOptionName })[] = (
  Object.keys(rabbitOptionSpecs) as RabbitOptionName[]
).map((name) => ({ name, ...rabbitOptionSpecs[name] }));

export const defaultRabbitOptions = Object.fromEntries(
  rabbitOptions.map((option) => [option.name, option.default]),
) as RabbitOptions;

/** Current name of an option, also by an older name; undefined when there is none. */
export function rabbitOptionName(name: string): RabbitOptionName | undefined {
  return rabbitOptions.find((option) => option.name === name || option.deprecatedNames?.includes(name))?.name;
}

/**
 * Typed options from the text of a configuration file or of a URL's query, over `base`.
 * Rejects an unknown name, a value outside type, range or choices, and combinations that oslo refuses.
 */
export function parseRabbitOptions(
  raw: Readonly<Record<string, string>>,
  base: RabbitOptions = defaultRabbitOptions,
): RabbitOptions {
  const values: Record<string, boolean | number | string> = { ...base };
  const fromCurrentName = new Set<string>();
  for (const [key, text] of Object.entries(raw)) {
    const name = rabbitOptionName(key);
    if (name === undefined) throw new AppError('invalid', `[oslo_messaging_rabbit] has no option '${key}'`);
    if (name !== key && fromCurrentName.has(name)) continue;
    if (name === key) fromCurrentName.add(name);
    values[name] = parseValue(name, text);
  }
  const options = values as unknown as RabbitOptions;
  checkRabbitOptions(options);
  return options;
}

function parseValue(name: RabbitOptionName, text: string): boolean | number | string {
  const spec: RabbitOptionSpec = rabbitOptionSpecs[name];
  const value = parseByType[spec.type](text.trim());
  if (value === undefined) throw invalid(name, `'${text}' is not a ${spec.type}`);
  if (spec.choices && !spec.choices.includes(String(value))) {
    throw invalid(name, `'${text}' is none of ${spec.choices.filter(Boolean).join(', ')}`);
  }
  if (typeof value === 'number' && value < (spec.min ?? -Infinity)) throw invalid(name, `${value} < ${spec.min}`);
  if (typeof value === 'number' && value > (spec.max ?? Infinity)) throw invalid(name, `${value} > ${spec.max}`);
  return value;
}

const parseByType: Readonly<Record<OptionType, (text: string) => boolean | number | string | undefined>> = {
  bool(text) {
    if (/^(true|1|on|yes)$/i.test(text)) return true;
    return /^(false|0|off|no)$/i.test(text) ? false : undefined;
  },
  int: (text) => (/^[+-]?\d+$/.test(text) ? Number(text) : undefined),
  float: (text) => (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : undefined),
  string: (text) => text,
};

/** Combinations that oslo refuses at start-up (section 1.3). */
const conflicts: readonly (readonly [RabbitOptionName, (options: RabbitOptions) => boolean, string])[] = [
  [
    'rabbit_ha_queues',
    (o) => o.rabbit_ha_queues && (o.rabbit_quorum_queue || o.rabbit_transient_quorum_queue),
    'queues are quorum or mirrored, not both',
  ],
  [
    'rabbit_stream_fanout',
    (o) => o.rabbit_stream_fanout && o.rabbit_qos_prefetch_count === 0,
    'needs rabbit_qos_prefetch_count > 0',
  ],
  [
    'rabbit_stream_fanout',
    (o) => o.rabbit_stream_fanout && !o.rabbit_transient_quorum_queue,
    'needs rabbit_transient_quorum_queue = true',
  ],
  ['rpc_conn_pool_size', (o) => o.rpc_conn_pool_size < o.conn_pool_min_size, 'is less than conn_pool_min_size'],
];

function checkRabbitOptions(options: RabbitOptions): void {
  for (const [name, isWrong, why] of conflicts) if (isWrong(options)) throw invalid(name, why);
  if (options.kombu_compression === 'bz2') {
    throw new AppError('unsupported', 'kombu_compression = bz2: there is no bz2 here; set gzip on every service');
  }
  if (options.rabbit_login_method === 'RABBIT-CR-DEMO') {
    throw new AppError('unsupported', 'rabbit_login_method = RABBIT-CR-DEMO: use AMQPLAIN, PLAIN or EXTERNAL');
  }
}

function invalid(name: RabbitOptionName, why: string): AppError {
  return new AppError('invalid', `[oslo_messaging_rabbit] ${name}: ${why}`);
}
