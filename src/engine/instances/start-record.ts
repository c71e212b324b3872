// What the row of an instance says from its start on.
import type { RuntimeCheckpoint } from '#drivers/runtime/driver.ts';
import type { IdMapRange } from '#drivers/storage/driver.ts';
import type { Reverter } from '#src/lib/reverter.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import type { ConfigMap } from '../types.ts';
import { idMapJson } from './idmap.ts';

interface Starting {
  readonly record: InstanceRecord;
  readonly idMap: IdMapRange | null;
  readonly checkpoint: RuntimeCheckpoint | undefined;
}

/** Before the container runs: a daemon killed in between finds its traces at its next start. */
export function recordStart(
  { database: { instances } }: Pick<EngineContext, 'database'>,
  { record, idMap, checkpoint }: Starting,
  volatile: ConfigMap,
  revert: Reverter,
): void {
  const { 'volatile.apply_template': _applied, ...others } = record.config;
  const map = idMapJson(idMap);
  const config = {
    ...(checkpoint ? record.config : others),
    ...volatile,
    'volatile.idmap.current': map,
    'volatile.idmap.next': map,
    'volatile.last_state.power': 'RUNNING',
  };
  instances.update(record.id, { config, lastUsedAt: new Date().toISOString() });
  revert.add('record', () => {
    instances.update(record.id, { config: record.config, lastUsedAt: record.lastUsedAt });
  });
}
