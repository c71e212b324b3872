import { describe, expect, it } from 'vitest';
import { kindOf } from '#src/lib/errors.ts';
import { defaultRabbitOptions, parseRabbitOptions, rabbitOptionName, rabbitOptions } from '#src/messaging/options.ts';

function refused(raw: Record<string, string>): string {
  try {
    parseRabbitOptions(raw);
  } catch (error) {
    return `${kindOf(error)}: ${(error as Error).message}`;
  }
  return 'accepted';
}

describe('[oslo_messaging_rabbit]', () => {
  it('has defaults that pass its own rules', () => {
    expect(parseRabbitOptions({})).toEqual(defaultRabbitOptions);
    for (const { name, default: value } of rabbitOptions) {
      expect(parseRabbitOptions({ [name]: String(value) })[name], name).toBe(value);
    }
  });

  it('reads the types as oslo.config does', () => {
    const options = parseRabbitOptions({ ssl: 'Yes', kombu_reconnect_delay: '0.25', rabbit_retry_interval: ' 5 ' });
    expect(options).toMatchObject({ ssl: true, kombu_reconnect_delay: 0.25, rabbit_retry_interval: 5 });
  });

  it('reads over a base', () => {
    const base = parseRabbitOptions({ amqp_durable_queues: 'true' });
    expect(parseRabbitOptions({ heartbeat_rate: '2' }, base)).toEqual({ ...base, heartbeat_rate: 2 });
  });

  it('knows the older names, and prefers the current one', () => {
    expect(rabbitOptionName('rabbit_quroum_max_memory_length')).toBe('rabbit_quorum_max_memory_length');
    expect(parseRabbitOptions({ rabbit_use_ssl: '1' }).ssl).toBe(true);
    const both = { rabbit_quorum_max_memory_bytes: '1', rabbit_quroum_max_memory_bytes: '2' };
    expect(parseRabbitOptions(both).rabbit_quorum_max_memory_bytes).toBe(1);
  });

  it.each([
    [{ rabbit_qourum: '1' }, 'invalid', 'no option'],
    [{ ssl: 'maybe' }, 'invalid', 'not a bool'],
    [{ rabbit_retry_interval: '1.5' }, 'invalid', 'not a int'],
    [{ kombu_reconnect_delay: '4.6' }, 'invalid', '> 4.5'],
    [{ heartbeat_rate: '0' }, 'invalid', '< 1'],
    [{ rabbit_login_method: 'SCRAM' }, 'invalid', 'none of PLAIN'],
    [{ rabbit_login_method: 'RABBIT-CR-DEMO' }, 'unsupported', 'AMQPLAIN'],
    [{ kombu_compression: 'bz2' }, 'unsupported', 'no bz2'],
    [{ rabbit_ha_queues: 'true', rabbit_quorum_queue: 'true' }, 'invalid', 'not both'],
    [{ rabbit_ha_queues: 'true', rabbit_transient_quorum_queue: 'true' }, 'invalid', 'not both'],
    [{ rabbit_stream_fanout: 'true', rabbit_transient_quorum_queue: 'true' }, 'invalid', 'prefetch'],
    [{ rabbit_stream_fanout: 'true', rabbit_qos_prefetch_count: '1' }, 'invalid', 'rabbit_transient_quorum_queue'],
    [{ rpc_conn_pool_size: '1' }, 'invalid', 'conn_pool_min_size'],
  ] as const)('refuses %j', (raw, kind, why) => {
    const answer = refused(raw);
    expect(answer).toContain(`${kind}: `);
    expect(answer).toContain(why);
  });
});
