// Somebody at the console of an instance, through the engine's console operation.
import type { Duplex } from 'node:stream';
import type { EngineClient } from '#src/client/client.ts';
import { instancePath } from '#src/client/instances.ts';
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';

/** Serial lines tell no size; this is what programs expect of one. */
const SIZE = { width: 80, height: 24 };

/** Nothing that is typed is looked at: keys that detach other clients of the engine are the guest's here. */
export async function sitAtConsole(
  client: EngineClient,
  name: string,
  terminal: Duplex,
  leave: AbortSignal,
): Promise<void> {
  let isJoined = false;
  try {
    await client.sessions.console(instancePath(name), SIZE, {
      streams: { stdin: terminal, stdout: terminal, filter: (chunk) => chunk, leave },
      onStart: () => {
        isJoined = true;
        return { [Symbol.dispose]: () => {} };
      },
    });
  } catch (error) {
    if (leave.aborted) return;
    // our engine says so of consoles that are taken, all of guests that have stopped meanwhile; Incus calls it an error of its own
    if (kindOf(error) === 'invalid' || /already connected/i.test(messageOf(error))) {
      throw new AppError('conflict', `the console of ${name} is not to be had`, { cause: error });
    }
    // LXD tells the end of a guest, and that somebody else was there, as the same error of an operation that has begun
    if (!isJoined) throw error;
  }
}
