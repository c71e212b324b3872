// The same for the conductor, which the compute reaches over the bus.
import { type Cell, describeOutages } from './lab/outage-cells.ts';

const CELLS: readonly Cell[] = [
  ['create', 'conductor', 'is away', 'ACTIVE'],
  ['hard reboot', 'conductor', 'is away', 'ACTIVE'],
  ['delete', 'conductor', 'is away', 'DELETED'],
  ['stop', 'conductor', 'errs', 'SHUTOFF'],
];

/** What the conductor refused is put right a minute after it answers again. */
describeOutages(CELLS, 120_000);
