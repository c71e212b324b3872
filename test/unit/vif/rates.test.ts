import { describe, expect, it } from 'vitest';
import { EndRates } from '#drivers/vif/common/rates.ts';
import type { FlowRate } from '#drivers/vif/driver.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';

const NONE = { inbound: null, outbound: null };
const RATE: FlowRate = { averageBytes: 1000, peakBytes: null, burstBytes: null };
const signal = AbortSignal.timeout(5000);
const fresh = { name: 'tap1', isNew: true };
const old = { name: 'tap1', isNew: false };

const inputs = (host: FakeHost, tool: string): string[] =>
  host.commands.filter(({ argv, input }) => argv[0] === tool && input !== '').map(({ input }) => input.trim());

describe('without limits', () => {
  it('reads once what an earlier process left, and then runs nothing', async () => {
    const host = new FakeHost().fail(/^nft .*list/, 'No such file or directory');
    const rates = new EndRates(host);

    await Promise.all([rates.set(fresh, NONE, signal), rates.set(old, NONE, signal), rates.remove('tap1', signal)]);

    expect(host.calls).toEqual(['nft -json list table netdev nova', 'tc -json qdisc show']);
  });

  it('takes away those of an earlier process', async () => {
    const queue = JSON.stringify([{ handle: '4c58:', dev: 'tap1' }]);
    const host = new FakeHost()
      .on(/^nft .*list/, JSON.stringify({ nftables: [{ metainfo: {} }, { chain: { name: 'tap1' } }] }))
      .on(/^tc .*show/, queue);

    await new EndRates(host).set(old, NONE, signal);

    expect(inputs(host, 'tc')).toEqual(['qdisc delete dev tap1 root']);
    expect(inputs(host, 'nft')[0]).toMatch(/delete chain netdev nova tap1$/);
  });

  it("leaves the queue alone that Neutron's agent made", async () => {
    const host = new FakeHost()
      .on(/^nft .*list/, JSON.stringify({ nftables: [{ chain: { name: 'tap1' } }] }))
      .on(/^tc .*show/, JSON.stringify([{ handle: '8001:', dev: 'tap1' }]));

    await new EndRates(host).set(old, NONE, signal);

    expect(inputs(host, 'tc')).toEqual([]);
  });
});

describe('with limits', () => {
  it.each<[Partial<FlowRate>, string]>([
    [{}, 'rate 8000bit'],
    [{ peakBytes: 2000 }, 'rate 8000bit ceil 16000bit'],
    [{ peakBytes: 2000, burstBytes: 50_000 }, 'rate 8000bit ceil 16000bit burst 50000'],
    [{ burstBytes: 50_000 }, 'rate 8000bit burst 50000 cburst 50000'],
    [{ burstBytes: 1 }, 'rate 8000bit burst 3200 cburst 3200'],
  ])('queues what goes to the guest: %j', async (more, expected) => {
    const host = new FakeHost();

    await new EndRates(host).set(fresh, { inbound: { ...RATE, ...more }, outbound: null }, signal);

    expect(inputs(host, 'tc')).toEqual([
      `qdisc replace dev tap1 root handle 4c58: htb default 1\nclass replace dev tap1 parent 4c58: classid 4c58:1 htb ${expected}`,
    ]);
  });

  it('keeps a queue of its own that is there', async () => {
    const host = new FakeHost().on(/^tc .*show dev tap1/, JSON.stringify([{ handle: '4c58:' }]));

    await new EndRates(host).set(old, { inbound: RATE, outbound: null }, signal);

    expect(inputs(host, 'tc')).toEqual(['class replace dev tap1 parent 4c58: classid 4c58:1 htb rate 8000bit']);
  });

  it.each<[Partial<FlowRate>, readonly string[]]>([
    [{}, ['over 1000 bytes/second burst 0 bytes']],
    [{ burstBytes: 5000 }, ['over 1000 bytes/second burst 4000 bytes']],
    [{ peakBytes: 2000 }, ['over 2000 bytes/second burst 0 bytes', 'over 1000 bytes/second burst 0 bytes']],
  ])('drops what the guest sends too fast: %j', async (more, expected) => {
    const host = new FakeHost();

    await new EndRates(host).set(fresh, { inbound: null, outbound: { ...RATE, ...more } }, signal);

    const lines = inputs(host, 'nft')[0]?.split('\n') ?? [];
    expect(lines).toContain(
      'add chain netdev nova tap1 { type filter hook ingress device "tap1" priority -200; policy accept; }',
    );
    const rules = lines.filter((line) => line.startsWith('add rule'));
    expect(rules).toEqual(expected.map((limit) => `add rule netdev nova tap1 limit rate ${limit} drop`));
  });

  it('a policer goes with its end', async () => {
    const host = new FakeHost();
    const rates = new EndRates(host);
    await rates.set(fresh, { inbound: null, outbound: RATE }, signal);

    await rates.remove('tap1', signal);
    await rates.remove('tap1', signal);

    expect(inputs(host, 'nft').map((input) => input.includes('add rule'))).toEqual([true, false]);
  });
});
