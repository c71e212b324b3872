// A volume with others nested in it goes to another pool of its kind: all of them as streams, those nested as such.
import type { HeldStream, NestedStream, StorageStreams, VolumeRef } from '#drivers/storage/driver.ts';

export interface NestedCopy {
  readonly sender: StorageStreams;
  readonly receiver: StorageStreams;
  readonly from: VolumeRef;
  /** There, and empty. */
  readonly to: VolumeRef;
  readonly snapshots: readonly string[];
  /** Sent instead of the volume as it is now. */
  readonly only?: string | undefined;
}

interface Part {
  /** Undefined: the volume itself. */
  readonly sent: string | undefined;
  readonly arrives: string | undefined;
}

/** The source is held still meanwhile; it may be in use. */
export async function sendNested(copy: NestedCopy, signal: AbortSignal): Promise<void> {
  const { sender, receiver, from, to, only } = copy;
  const snapshots = only === undefined ? copy.snapshots : [...copy.snapshots, only];
  const kept: readonly Part[] = copy.snapshots.map((name) => ({ sent: name, arrives: name }));
  const parts = [...kept, { sent: only, arrives: undefined }];
  const receive = async (streams: readonly HeldStream[]): Promise<void> => {
    let base: string | undefined;
    for (const { sent, arrives } of parts) {
      const [first, ...nested] = streams.filter(({ snapshot }) => snapshot === sent);
      if (!first) throw new Error(`no stream of ${from.name}`);
      const part = { volume: to, snapshot: arrives, base, owners: first.owners, nested: opened(nested) };
      await first.read((stream) => receiver.receive(part, stream, signal));
      base = arrives;
    }
  };
  await sender.hold({ volume: from, snapshots }, receive, signal);
}

/** One after the other: each is closed when the next is asked for. */
async function* opened(nested: readonly HeldStream[]): AsyncGenerator<NestedStream> {
  for (const { path, readonly, read } of nested) {
    const given = Promise.withResolvers<NodeJS.ReadableStream>();
    const taken = Promise.withResolvers<void>();
    const reading = read(async (stream) => {
      given.resolve(stream);
      await taken.promise;
    });
    reading.catch(given.reject);
    try {
      yield { path, readonly, stream: await given.promise };
    } finally {
      taken.resolve();
      await reading;
    }
  }
}
