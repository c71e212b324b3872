// Hardware that came or went, for a running instance that has a device of it.
import type { EngineContext } from '../context.ts';
import { expander } from './expansion.ts';
import { type InstanceKey, lockKey } from './instance-paths.ts';
import type { LiveChanges } from './live-changes.ts';
import type { Supervisor } from './supervisor.ts';

const LIMIT_MS = 60_000;

export interface RefreshParts {
  readonly context: EngineContext;
  readonly supervisor: Supervisor;
  readonly live: LiveChanges;
}

/** Never rejects: a device that cannot be refreshed is logged, and the next change tries again. */
export async function refreshDevice(parts: RefreshParts, key: InstanceKey, device: string): Promise<void> {
  const { context, supervisor, live } = parts;
  const signal = AbortSignal.timeout(LIMIT_MS);
  try {
    await context.locks.run(
      lockKey(key),
      async () => {
        const record = context.database.instances.find(key.project, key.name);
        const life = record && supervisor.life(record.id);
        if (!life) return;
        await live.refresh(record, { life, expanded: expander(context.database)(record), device }, signal);
      },
      signal,
    );
  } catch (error) {
    context.log.warn('a device could not follow the hardware', { instance: key.name, device, error });
  }
}
