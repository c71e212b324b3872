// The end of a migration where something arrives: agreed upon by a request, it waits for the source or connects to it.
import { AppError } from '#src/lib/errors.ts';
import { type Channels, dial, ExpectedConnections, type PeerOperation } from './connections.ts';
import { finish } from './session.ts';

export interface ArrivalRequest {
  /** pull: this end connects; push: it waits. */
  readonly mode?: string;
  /** pull: the source's operation, and the secrets of its channels. */
  readonly operation?: string;
  readonly certificate?: string;
  readonly secrets?: Readonly<Record<string, string>>;
}

/** An arrival that was agreed upon: who connects to whom. */
export interface Arrival {
  /** Undefined: this end connects. */
  readonly expected: ExpectedConnections | undefined;
  readonly connect: (signal: AbortSignal) => Promise<Channels>;
}

/** AppError with LXD's text for a request that is none. */
export function arrivalOf({ mode = '', ...source }: ArrivalRequest): Arrival {
  if (mode === 'push') {
    const expected = new ExpectedConnections();
    return { expected, connect: (signal) => expected.wait(signal) };
  }
  if (mode !== 'pull') throw new AppError('unsupported', `Mode "${mode}" not implemented`);
  const peer = peerOf(source);
  return { expected: undefined, connect: (signal) => dial(peer, signal) };
}

function peerOf({ operation = '', certificate = '', secrets = {} }: ArrivalRequest): PeerOperation {
  for (const name of ['control', 'fs']) {
    if ((secrets[name] ?? '') === '') throw new AppError('internal', `Missing ${name} secret`);
  }
  return { operation, certificate, secrets };
}

/** Runs `work` with the connection to the source, and tells it how that ended. */
export async function duringArrival(
  { connect }: Pick<Arrival, 'connect'>,
  signal: AbortSignal,
  work: (channels: Channels) => Promise<void>,
): Promise<void> {
  using channels = await connect(signal);
  try {
    await work(channels);
  } catch (error) {
    // The reason is what matters; that the source is gone as well does not.
    await finish(channels, error).catch(() => undefined);
    throw error;
  }
  await finish(channels);
}
