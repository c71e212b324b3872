// The host goes down: all instances are stopped, in order and within their time, so that they come back with the next daemon.
import { availableParallelism } from 'node:os';
import { atATime } from '#src/lib/at-a-time.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { noteStoppedAll } from './autostart.ts';
import { expander } from './expansion.ts';
import type { StateChange } from './requests.ts';
import type { Supervisor } from './supervisor.ts';

const DEFAULT_TIMEOUT_SECONDS = 30;
/** Killing one ends in this time. */
const KILL_MS = 60_000;

export interface HostShutdownParts {
  readonly context: EngineContext;
  readonly supervisor: Pick<Supervisor, 'status'>;
  readonly power: { change(record: InstanceRecord, change: StateChange, signal: AbortSignal): Promise<void> };
}

interface Stop {
  readonly record: InstanceRecord;
  readonly priority: number;
  readonly timeoutSeconds: number;
}

/** Those of the highest boot.stop.priority first, some at a time. One that cannot be stopped does not keep the others. */
export async function stopAll(parts: HostShutdownParts, signal: AbortSignal): Promise<void> {
  const stops = runningOf(parts);
  const batches = [...Map.groupBy(stops, ({ priority }) => priority)].toSorted(([left], [right]) => right - left);
  for (const [, batch] of batches) {
    await atATime(availableParallelism(), batch, (stop) => stopOne(parts, stop, signal));
  }
  await noteStoppedAll(parts.context);
}

function runningOf({ context, supervisor }: HostShutdownParts): readonly Stop[] {
  const expand = expander(context.database);
  return context.database.instances
    .list()
    .filter(({ id }) => supervisor.status(id) !== 'Stopped')
    .map((record) => {
      const { config } = expand(record);
      return {
        record,
        priority: Number(config['boot.stop.priority'] ?? 0),
        timeoutSeconds: Number(config['boot.host_shutdown_timeout'] ?? DEFAULT_TIMEOUT_SECONDS),
      };
    });
}

async function stopOne(parts: HostShutdownParts, { record, timeoutSeconds }: Stop, signal: AbortSignal): Promise<void> {
  const { context, power } = parts;
  const stop = { action: 'stop', stateful: false } as const;
  try {
    await power.change(record, { ...stop, force: false, timeoutSeconds }, signal);
  } catch (error) {
    context.log.warn('an instance did not shut down and is killed', { instance: record.name, error });
    await kill(parts, record);
  }
  const now = context.database.instances.find(record.project, record.name);
  if (!now) return;
  context.database.instances.update(now.id, { config: { ...now.config, 'volatile.last_state.power': 'RUNNING' } });
}

async function kill({ context, power, supervisor }: HostShutdownParts, record: InstanceRecord): Promise<void> {
  if (supervisor.status(record.id) === 'Stopped') return;
  const kill = { action: 'stop', stateful: false, force: true, timeoutSeconds: 0 } as const;
  await power.change(record, kill, AbortSignal.timeout(KILL_MS)).catch((error: unknown) => {
    context.log.error('an instance could not be stopped', { instance: record.name, error });
  });
}
