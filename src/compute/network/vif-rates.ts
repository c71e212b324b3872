// The bandwidth that a flavor allows each interface: quota:vif_* in KiB/s and KiB, as libvirt's driver takes them.
import { AppError } from '#src/lib/errors.ts';
import type { FlowRate, VifRates } from '#drivers/vif/driver.ts';

type Specs = Readonly<Record<string, string>>;

const KIB = 1024;
/** More than any interface has, and exact when counted in bits. */
const MAX_KIB = 2 ** 40;

/** `inbound` is what flows to the guest. AppError 'invalid' for limits that mean nothing. */
export function vifRates(extraSpecs: Specs): VifRates {
  return { inbound: flowRate(extraSpecs, 'inbound'), outbound: flowRate(extraSpecs, 'outbound') };
}

function flowRate(specs: Specs, direction: 'inbound' | 'outbound'): FlowRate | null {
  const [averageBytes, peakBytes, burstBytes] = (['average', 'peak', 'burst'] as const).map((which) =>
    bytesOf(specs, `quota:vif_${direction}_${which}`),
  ) as [number | null, number | null, number | null];
  if (averageBytes === null) {
    if (peakBytes === null && burstBytes === null) return null;
    throw new AppError(
      'invalid',
      `the flavor limits the ${direction} bandwidth without quota:vif_${direction}_average`,
    );
  }
  if (peakBytes !== null && peakBytes < averageBytes) {
    throw new AppError('invalid', `quota:vif_${direction}_peak of the flavor is less than the average`);
  }
  return { averageBytes, peakBytes, burstBytes };
}

/** 0 is no limit. */
function bytesOf(specs: Specs, key: string): number | null {
  const text = specs[key]?.trim() ?? '';
  if (text === '' || text === '0') return null;
  const value = Number(text);
  if (/^\d+$/.test(text) && value > 0 && value <= MAX_KIB) return value * KIB;
  throw new AppError('invalid', `${key} of the flavor is no number of KiB`);
}
