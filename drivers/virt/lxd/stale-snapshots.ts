// What a process that was killed while it made an image of a guest left in the engine: snapshots of ours, and images of them.
import type { EngineClient } from '#src/client/client.ts';
import { atATime } from '#src/lib/at-a-time.ts';
import { asError, kindOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import type { EngineCalls } from './engine-calls.ts';
import { novaUuid } from './marks.ts';
import { SNAPSHOT_PROPERTY } from './snapshot.ts';

const AT_ONCE = 8;
const OURS = /^nova-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export interface SweepContext {
  readonly client: EngineClient;
  readonly calls: EngineCalls;
  readonly log: Log;
  /** Names of the snapshots that this process has in use. */
  readonly live: ReadonlySet<string>;
}

/** What the killed process had begun in the engine is waited for. What cannot be removed is logged, and found again next time. */
export async function removeStaleSnapshots(context: SweepContext, signal: AbortSignal): Promise<void> {
  const { client, log } = context;
  const ours = (await client.instances.list({ signal })).filter((instance) => novaUuid(instance) !== undefined);
  const attempt = async (what: object, work: () => Promise<void>): Promise<void> => {
    await work().catch((error: unknown) => {
      signal.throwIfAborted();
      if (kindOf(error) === 'not_found') return;
      log.warn('what a killed process left of a snapshot stays in the engine', { ...what, error: asError(error) });
    });
  };
  await atATime(AT_ONCE, ours, async ({ name: instance }) => {
    await attempt({ instance }, () => sweepInstance(context, instance, attempt, signal));
  });
  await attempt({}, () => sweepImages(context, attempt, signal));
}

type Attempt = (what: object, work: () => Promise<void>) => Promise<void>;

async function sweepInstance(
  { client, calls, log, live }: SweepContext,
  instance: string,
  attempt: Attempt,
  signal: AbortSignal,
): Promise<void> {
  await calls.settle(instance, signal);
  for (const snapshot of await client.instances.snapshotNames(instance, signal)) {
    if (!OURS.test(snapshot) || live.has(snapshot)) continue;
    await attempt({ instance, snapshot }, async () => {
      // waits for a publication that reads it
      await (await client.instances.removeSnapshot(instance, snapshot, { signal })).wait(signal);
      log.info('snapshot of a killed process removed', { instance, snapshot });
    });
  }
}

async function sweepImages({ client, log, live }: SweepContext, attempt: Attempt, signal: AbortSignal): Promise<void> {
  for (const { fingerprint, properties } of await client.images.list({ signal })) {
    const snapshot = properties?.[SNAPSHOT_PROPERTY];
    if (snapshot === undefined || live.has(snapshot)) continue;
    await attempt({ fingerprint, snapshot }, async () => {
      await (await client.images.remove(fingerprint, { signal })).wait(signal);
      log.info('image of a snapshot of a killed process removed', { fingerprint, snapshot });
    });
  }
}
