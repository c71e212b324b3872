import { describe, expect, it } from 'vitest';
import { parseRabbitOptions } from '#src/messaging/options.ts';
import { Topology } from '#src/messaging/topology.ts';

function topology(raw: Record<string, string> = {}): Topology {
  return new Topology(parseRabbitOptions(raw));
}

describe('topology', () => {
  it('is transient with the defaults', () => {
    const it = topology();
    expect(it.topicQueue('nova', 'compute.h1')).toEqual({
      name: 'compute.h1',
      durable: false,
      autoDelete: false,
      arguments: {},
      binding: {
        exchange: { name: 'nova', type: 'topic', durable: false, autoDelete: false },
        routingKey: 'compute.h1',
      },
      consumerArguments: {},
      isStream: false,
      deleteOnStop: false,
    });
    expect(it.fanoutQueue('compute', 'abc')).toEqual({
      name: 'compute_fanout_abc',
      durable: false,
      autoDelete: false,
      arguments: { 'x-expires': 1_800_000 },
      binding: {
        exchange: { name: 'compute_fanout', type: 'fanout', durable: false, autoDelete: true },
        routingKey: 'compute',
      },
      consumerArguments: {},
      isStream: false,
      deleteOnStop: true,
    });
    expect(it.replyQueue('abc')).toEqual({
      name: 'reply_abc',
      durable: false,
      autoDelete: false,
      arguments: { 'x-expires': 1_800_000 },
      consumerArguments: {},
      isStream: false,
      deleteOnStop: false,
    });
  });

  it('amqp_durable_queues and amqp_auto_delete concern the topic side alone', () => {
    const it = topology({ amqp_durable_queues: 'true', amqp_auto_delete: 'true' });
    const queue = it.topicQueue('nova', 'compute');
    expect(queue).toMatchObject({
      durable: true,
      autoDelete: true,
      binding: { exchange: { durable: true, autoDelete: true } },
    });
    expect(it.fanoutQueue('compute', 'x')).toMatchObject({ durable: false, autoDelete: false });
    expect(it.replyQueue('x').durable).toBe(false);
  });

  it('rabbit_quorum_queue is durable and carries its limits', () => {
    const it = topology({
      rabbit_quorum_queue: 'true',
      rabbit_quorum_delivery_limit: '3',
      rabbit_quroum_max_memory_length: '10',
      rabbit_quorum_max_memory_bytes: '99',
    });
    expect(it.topicQueue('nova', 'compute')).toMatchObject({ durable: true, binding: { exchange: { durable: true } } });
    expect(it.topicQueue('nova', 'compute').arguments).toEqual({
      'x-queue-type': 'quorum',
      'x-delivery-limit': 3,
      'x-max-in-memory-length': 10,
      'x-max-in-memory-bytes': 99,
    });
    expect(it.replyQueue('x')).toMatchObject({ durable: false, arguments: { 'x-expires': 1_800_000 } });
  });

  it('rabbit_transient_quorum_queue makes replies and fanouts durable quorum queues', () => {
    const it = topology({ rabbit_transient_quorum_queue: 'true', rabbit_transient_queues_ttl: '60' });
    const expected = { durable: true, arguments: { 'x-queue-type': 'quorum', 'x-expires': 60_000 } };
    expect(it.replyQueue('x')).toMatchObject(expected);
    expect(it.fanoutQueue('compute', 'x')).toMatchObject(expected);
    expect(it.fanoutExchange('compute').durable).toBe(true);
    expect(it.topicQueue('nova', 'compute').durable).toBe(false);
  });

  it('a TTL of 0 leaves x-expires away', () => {
    expect(topology({ rabbit_transient_queues_ttl: '0' }).replyQueue('x').arguments).toEqual({});
  });

  it('rabbit_ha_queues mirrors every kind of queue', () => {
    const it = topology({ rabbit_ha_queues: 'true' });
    expect(it.topicQueue('nova', 'compute').arguments).toEqual({ 'x-ha-policy': 'all' });
    expect(it.replyQueue('x').arguments).toEqual({ 'x-ha-policy': 'all', 'x-expires': 1_800_000 });
  });

  it('rabbit_stream_fanout is one shared stream', () => {
    const it = topology({
      rabbit_stream_fanout: 'true',
      rabbit_transient_quorum_queue: 'true',
      rabbit_qos_prefetch_count: '10',
    });
    expect(it.fanoutQueue('compute', 'ignored')).toMatchObject({
      name: 'compute_fanout',
      durable: true,
      arguments: { 'x-queue-type': 'stream', 'x-max-age': '1800s' },
      isStream: true,
      deleteOnStop: false,
    });
  });

  it('use_queue_manager keeps the fanout queue, enable_cancel_on_failover says so to the broker', () => {
    const it = topology({ use_queue_manager: 'true', enable_cancel_on_failover: 'true' });
    expect(it.fanoutQueue('compute', 'x').deleteOnStop).toBe(false);
    expect(it.topicQueue('nova', 'compute').consumerArguments).toEqual({ 'x-cancel-on-ha-failover': true });
  });
});
