// Swaps of volumes that a killed process left half done: the server has the old volume again, or, when the copy was whole, the new one.
import type { Log } from '#src/lib/log.ts';
import { inParallel } from '../in-parallel.ts';
import type { Asking, Instance } from '../records.ts';
import type { InstanceOperations } from '../types.ts';
import { markedDevices } from '../volumes/swap-marks.ts';

export interface SwapRecoveryParts {
  readonly asking: Asking;
  readonly operations: Pick<InstanceOperations, 'resumeSwaps'>;
  readonly log: Log;
}

const AT_ONCE = 8;

/** To be done before any guest starts: it would write to the volume that Nova's record names. One that fails keeps its mark. */
export async function recoverSwaps(
  { asking, operations, log }: SwapRecoveryParts,
  instances: readonly Instance[],
  signal: AbortSignal,
): Promise<void> {
  const uuids = instances.map((instance) => instance.get('uuid'));
  const marked = await markedDevices(asking, uuids);
  const affected = instances.filter((one) => marked.some((device) => device.get('instance_uuid') === one.get('uuid')));
  await inParallel(affected, AT_ONCE, async (instance) => {
    const uuid = instance.get('uuid');
    const own = marked.filter((device) => device.get('instance_uuid') === uuid);
    await operations.resumeSwaps(asking.context, instance, own, signal).catch((error: unknown) => {
      signal.throwIfAborted();
      log.error('an interrupted swap of a volume is not recovered', { instance: uuid, error });
    });
  });
}
