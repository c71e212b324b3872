// Holds a running container still while its files are copied. Noted first: a daemon that comes after a crash lets it go on.
import type { RuntimeDriver } from '#drivers/runtime/driver.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { instancePaths } from './instance-paths.ts';
import type { Supervisor } from './supervisor.ts';
import { noteTransition, type Transition } from './transition.ts';

const UNFREEZE_MS = 60_000;

export interface StillParts {
  readonly context: EngineContext;
  readonly runtime: RuntimeDriver;
  readonly supervisor: Supervisor;
}

/** One that is stopped or frozen is still already. The caller holds the lock, and removes the note. */
export async function whileStill(
  { context, runtime, supervisor }: StillParts,
  { record, note }: { readonly record: InstanceRecord; readonly note: Transition },
  signal: AbortSignal,
  work: () => Promise<void>,
): Promise<void> {
  const life = supervisor.life(record.id);
  if (life?.status !== 'Running') return work();
  await noteTransition(context.host, instancePaths(context.paths, record), { ...note, frozen: true });
  await runtime.freeze(life.container, signal);
  try {
    await work();
  } finally {
    await runtime.unfreeze(life.container, AbortSignal.timeout(UNFREEZE_MS));
  }
}
