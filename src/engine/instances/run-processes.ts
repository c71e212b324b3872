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
  await limitRestored(parts, container, spec, signal);
}

/** Its control groups are as they were at the dump; whatever starts has those of its settings. */
async function limitRestored(
  { context, runtime }: Parts,
  container: RuntimeContainer,
  { limits }: RuntimeSpec,
  signal: AbortSignal,
): Promise<void> {
  try {
    const pid = await runtime.initPid(container, signal);
    if (pid !== undefined) await runtime.setLimits(pid, {}, limits);
  } catch (error) {
    context.log.warn('limits of a restored container could not be set', { container: container.name, error });
  }
}
