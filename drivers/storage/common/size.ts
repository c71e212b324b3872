// Sizes as LXD writes them: "10GiB", "500MB", "1024".
import { AppError } from '#src/lib/errors.ts';

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  kB: 1e3,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  PB: 1e15,
  EB: 1e18,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
  PiB: 2 ** 50,
  EiB: 2 ** 60,
};

export function parseSizeBytes(text: string): number {
  const [, digits = '', unit = ''] = /^(\d+)\s*([A-Za-z]*)$/.exec(text.trim()) ?? [];
  const factor = UNITS[unit];
  if (digits === '' || factor === undefined) throw new AppError('invalid', `invalid size ${JSON.stringify(text)}`);
  return Number(digits) * factor;
}
