// The last step of a start: init begins, or processes go on where they were when their state was saved.
import type { RuntimeCheckpoint, RuntimeContainer, RuntimeDriver, RuntimeSpec } from '#drivers/runtime/driver.ts';
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import type { InstancePaths } from './instance-paths.ts';
import type { InstanceRoots } from './instance-roots.ts';

interface Parts {
  readonly context: EngineContext;
  readonly runtime: RuntimeDriver;
  readonly roots: InstanceRoots;
}

interface Ready {
  readonly record: InstanceRecord;
  readonly paths: InstancePaths;
  readonly checkpoint: RuntimeCheckpoint | undefined;
}

export async function runProcesses(
  parts: Parts,
  { record, paths, checkpoint }: Ready,
  spec: RuntimeSpec,
  signal: AbortSignal,
): Promise<void> {
  const { runtime, roots } = parts;
  const { container } = paths;
  if (!checkpoint) return runtime.start(container, signal);
  try {
    await runtime.restore(container, checkpoint, signal);
  } catch (cause) {
    signal.throwIfAborted();
    const text = `${messageOf(cause)}. The state of "${record.name}" is kept: start it stateless to do without`;
    throw new AppError(kindOf(cause), text, { cause });
  }
  await roots.unmap(record);
  await adjustRestored(parts, container, spec, signal);
}

/** Limits and addresses are as they were at the dump; whatever starts has those of its settings, which a copy has of its own. */
async function adjustRestored(
  { context, runtime }: Parts,
  container: RuntimeContainer,
  { limits, nics }: RuntimeSpec,
  signal: AbortSignal,
): Promise<void> {
  const pid = await runtime.initPid(container, signal);
  if (pid === undefined) return;
  const inside = ['nsenter', '--target', String(pid), '--net', '--', 'ip', 'link', 'set', 'dev'] as const;
  try {
    // By way of none: from what they are to what they are to be, the order is not known.
    await runtime.setLimits(pid, limits, {});
    await runtime.setLimits(pid, {}, limits);
    for (const { name, hwaddr } of nics) {
      if (hwaddr !== undefined) await context.host.run([...inside, name, 'address', hwaddr], { signal });
    }
  } catch (error) {
    context.log.warn('a restored container has limits or addresses of its dump', { container: container.name, error });
  }
}
