import { describe, expect, it } from 'vitest';
import { BrokerList, reconnectDelayMs, retryDelayMs } from '#src/messaging/brokers.ts';
import { defaultRabbitOptions, parseRabbitOptions } from '#src/messaging/options.ts';
import type { BrokerAddress } from '#src/messaging/transport-url.ts';

const named = (host: string): BrokerAddress => ({ host, port: 5672, username: '', password: '' });
const three = [named('a'), named('b'), named('c')] as const;

describe('the list of brokers', () => {
  it('is shuffled, keeps every broker and goes round', () => {
    const list = new BrokerList([...three], 'round-robin', () => 0);
    const seen = [0, 1, 2, 3].map(() => {
      const { host } = list.current;
      list.next();
      return host;
    });
    expect(seen).toEqual(['b', 'c', 'a', 'b']);
  });

  it('starts at each of them about equally often', () => {
    const starts = new Map<string, number>();
    for (let run = 0; run < 3000; run += 1) {
      const { host } = new BrokerList([...three], 'round-robin').current;
      starts.set(host, (starts.get(host) ?? 0) + 1);
    }
    for (const count of starts.values()) expect(count).toBeGreaterThan(800);
    expect(starts.size).toBe(3);
  });

  it('jumps at random with the strategy shuffle', () => {
    const values = [0.99, 0.99, 0.7];
    const list = new BrokerList([...three], 'shuffle', () => values.shift() ?? 0);
    expect(list.current.host).toBe('a');
    list.next();
    expect(list.current.host).toBe('c');
  });
});

describe('the wait before the next attempt', () => {
  it('grows from 1 s by 2 s to 30 s', () => {
    const waits = [1, 2, 3, 15, 16, 100].map((failures) => retryDelayMs(failures, 1, defaultRabbitOptions));
    expect(waits).toEqual([1000, 3000, 5000, 29_000, 30_000, 30_000]);
  });

  it('comes only after all brokers were tried', () => {
    const waits = [1, 2, 3, 4, 6].map((failures) => retryDelayMs(failures, 3, defaultRabbitOptions));
    expect(waits).toEqual([0, 0, 1000, 0, 3000]);
  });

  it('after a loss is kombu_reconnect_delay plus a part of the splay', () => {
    expect(reconnectDelayMs(defaultRabbitOptions, () => 0.5)).toBe(1000);
    expect(reconnectDelayMs(parseRabbitOptions({ kombu_reconnect_splay: '4' }), () => 0.5)).toBe(3000);
  });
});
