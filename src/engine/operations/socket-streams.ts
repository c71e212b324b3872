// Bytes between websockets and streams, as LXD's clients have them: binary messages, and an empty text message for the end.
import type { Readable, Writable } from 'node:stream';
import { WebSocket } from 'ws';

/** What may wait in the daemon for a slow client. */
const HIGH_WATER_BYTES = 1 << 20;

/** From the client. `onEnd`: it has nothing more to say. */
export function feed(socket: WebSocket, target: Writable, onEnd: () => void): void {
  // A program may end without reading all of its input: its exit code tells what that means.
  target.on('error', () => undefined);
  target.on('drain', () => socket.resume());
  target.on('close', () => socket.resume());
  socket.on('message', (data: Buffer, isBinary) => {
    if (!isBinary) onEnd();
    else if (target.writable && !target.write(data)) socket.pause();
  });
  socket.resume();
}

/** To the client, and `farewell` after it. Resolves when the end of the stream is on its way, or the client is gone. */
export async function drain(source: Readable, socket: WebSocket, farewell?: Buffer): Promise<void> {
  const over = Promise.withResolvers<void>();
  source.on('error', () => undefined); // EIO: how the end of a terminal looks like
  source.on('close', () => over.resolve());
  socket.on('close', () => source.resume()); // for nobody
  source.on('data', (chunk: Buffer) => {
    if (socket.readyState !== WebSocket.OPEN) return;
    socket.send(chunk, { binary: true }, () => {
      if (source.isPaused() && socket.bufferedAmount < HIGH_WATER_BYTES) source.resume();
    });
    if (socket.bufferedAmount >= HIGH_WATER_BYTES) source.pause();
  });
  if (source.destroyed) over.resolve();
  await over.promise;
  if (farewell && socket.readyState === WebSocket.OPEN) socket.send(farewell, { binary: true });
  await finish(socket);
}

/** Resolves when everything before has been handed to the kernel. */
export function finish(socket: WebSocket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.readyState !== WebSocket.OPEN) {
      resolve();
      return;
    }
    socket.once('close', () => resolve());
    socket.send('', { binary: false }, () => resolve());
    socket.close();
  });
}
