// A migration whose two ends cannot reach each other: what one says on a channel is handed on to the other.
import { once } from 'node:events';
import type { RawData, WebSocket } from 'ws';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { EngineClient } from './client.ts';
import type { PendingOperation } from './operations.ts';

/** Bytes that wait for the slower end before the faster one has to. */
const MAX_WAITING = 1 << 20;

export interface RelayEnd {
  readonly client: EngineClient;
  /** Its metadata are the secrets of the channels. */
  readonly pending: PendingOperation;
}

/** Resolves when all channels are connected; they end with the migration, or when the result is disposed of. */
export async function relayMigration(source: RelayEnd, target: RelayEnd, signal: AbortSignal): Promise<Disposable> {
  const sockets: WebSocket[] = [];
  const ends = {
    [Symbol.dispose]() {
      for (const socket of sockets) socket.terminate();
    },
  };
  try {
    for (const name of ['control', 'fs']) {
      const pair = [channel(source, name), channel(target, name)] as const;
      sockets.push(...pair);
      await Promise.all(pair.map((socket) => opened(socket, signal)));
      handOn(pair[0], pair[1]);
      handOn(pair[1], pair[0]);
    }
    return ends;
  } catch (error) {
    ends[Symbol.dispose]();
    throw error;
  }
}

function channel({ client, pending }: RelayEnd, name: string): WebSocket {
  const secret = pending.operation.metadata?.[name];
  if (typeof secret !== 'string') throw new AppError('internal', `The engine offers no channel "${name}"`);
  const socket = client.operationSocket(pending.id, secret);
  socket.once('open', () => socket.pause());
  socket.on('error', () => socket.terminate());
  return socket;
}

async function opened(socket: WebSocket, signal: AbortSignal): Promise<void> {
  try {
    await once(socket, 'open', { signal });
  } catch (cause) {
    throw new AppError('unavailable', `The engine refused the connection: ${messageOf(cause)}`, { cause });
  }
}

/** Frames stay what they are: an empty text frame ends a stream. */
function handOn(from: WebSocket, to: WebSocket): void {
  from.on('message', (data: RawData, binary: boolean) => {
    if (to.readyState !== to.OPEN) return;
    to.send(data, { binary, compress: false }, () => {
      if (from.isPaused && to.bufferedAmount < MAX_WAITING) from.resume();
    });
    if (to.bufferedAmount >= MAX_WAITING) from.pause();
  });
  // What was handed on before arrives before the end.
  from.once('close', () => to.close(1000));
  from.resume();
}
