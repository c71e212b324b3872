import { describe, expect, it } from 'vitest';
import { vifRates } from '#src/compute/network/vif-rates.ts';

const spec = (values: Readonly<Record<string, string>>) =>
  vifRates(Object.fromEntries(Object.entries(values).map(([key, value]) => [`quota:vif_${key}`, value])));

describe('the bandwidth of a flavor', () => {
  it('is that of each direction, in KiB', () => {
    const rates = spec({ inbound_average: '100', inbound_peak: '200', inbound_burst: '300', outbound_average: '7' });

    expect(rates).toEqual({
      inbound: { averageBytes: 102_400, peakBytes: 204_800, burstBytes: 307_200 },
      outbound: { averageBytes: 7168, peakBytes: null, burstBytes: null },
    });
  });

  it.each([{}, { inbound_average: '0' }, { outbound_average: ' ' }])('of %j is none', (values) => {
    expect(spec(values)).toEqual({ inbound: null, outbound: null });
  });

  it.each([
    [{ inbound_peak: '5' }, 'without quota:vif_inbound_average'],
    [{ outbound_burst: '5' }, 'without quota:vif_outbound_average'],
    [{ inbound_average: '5', inbound_peak: '4' }, 'less than the average'],
    [{ inbound_average: '-5' }, 'no number of KiB'],
    [{ inbound_average: '5k' }, 'no number of KiB'],
    [{ inbound_average: '99999999999999' }, 'no number of KiB'],
  ])('of %j is refused', (values, complaint) => {
    expect(() => spec(values)).toThrow(complaint);
  });
});
