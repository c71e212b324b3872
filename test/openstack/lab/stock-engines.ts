// The engine that the lab's compute drives: ours, or a stock one that LIGHTERVISOR_ENGINE names.
import { SYSTEM_ENV } from './commands.ts';

interface StockEngine {
  readonly argv: readonly [string, ...string[]];
  /** The variable that tells it its directory. */
  readonly directoryVariable: string;
  readonly path: string;
}

const path = SYSTEM_ENV['PATH'] ?? '';

/** As plain processes; the group is the one that their socket belongs to. */
export const STOCK_ENGINES = {
  lxd: { argv: ['lxd', '--group', 'root'], directoryVariable: 'LXD_DIR', path },
  // Debian keeps it out of PATH
  incus: { argv: ['incusd', '--group', 'root'], directoryVariable: 'INCUS_DIR', path: `/usr/libexec/incus:${path}` },
} as const satisfies Record<string, StockEngine>;

export type LabEngine = 'lighterd' | keyof typeof STOCK_ENGINES;

export function labEngine(): LabEngine {
  const name = process.env['LIGHTERVISOR_ENGINE'] ?? 'lighterd';
  if (name === 'lighterd' || name === 'lxd' || name === 'incus') return name;
  throw new Error(`LIGHTERVISOR_ENGINE is ${name}: it may be lighterd, lxd or incus`);
}
