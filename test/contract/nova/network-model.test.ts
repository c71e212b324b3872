// The network model against every info cache that a stock cell stored.
import { expect, it } from 'vitest';
import { fixedIpsOf, parseNetworkInfo, serializeNetworkInfo } from '#src/nova/network-model.ts';
import { objectsIn, recordedMessages } from './recordings.ts';

const caches = new Set<string>(
  recordedMessages
    .flatMap(({ message }) => objectsIn(message))
    .filter((object) => object['nova_object.name'] === 'InstanceInfoCache')
    .map((object) => object['nova_object.data'].network_info)
    .filter((text) => typeof text === 'string'),
);

/** Nova itself moves keys it does not know into `meta` when it reads its cache: `label` and `vif_mac` of an address. */
function asNovaReadsIt(text: string): unknown {
  const vifs = JSON.parse(text);
  for (const vif of vifs) {
    for (const subnet of vif.network?.subnets ?? []) {
      subnet.ips = subnet.ips.map(({ label, vif_mac, ...ip }: Record<string, any>) =>
        label === undefined ? ip : { ...ip, meta: { ...ip['meta'], label, vif_mac } },
      );
    }
  }
  return vifs;
}

it('reads and writes every recorded cache, keys in the recorded order', () => {
  expect(caches.size).toBeGreaterThan(10);
  for (const text of caches) {
    const written = serializeNetworkInfo(parseNetworkInfo(text));

    expect(written).toBe(JSON.stringify(asNovaReadsIt(text)));
  }
});

it('finds the addresses of every recorded interface', () => {
  for (const text of caches) {
    for (const vif of parseNetworkInfo(text)) {
      expect(fixedIpsOf(vif).map((ip) => ip.address)).not.toEqual([]);
    }
  }
});
