// Consoles of guests that print what is typed.
import type { Duplex } from 'node:stream';
import { AppError } from '#src/lib/errors.ts';
import { aborted } from '#src/lib/wait.ts';
import { POWER_STATE, type PowerState } from '../driver.ts';

export class EchoConsoles {
  readonly #taken = new Set<object>();

  /** Until the end of the input. AppError 'conflict' when somebody is there, or the guest does not run. */
  async sit(
    guest: { console: string; readonly powerState: PowerState },
    terminal: Duplex,
    leave: AbortSignal,
  ): Promise<void> {
    if (guest.powerState !== POWER_STATE.running) throw new AppError('conflict', 'the instance does not run');
    if (this.#taken.has(guest)) throw new AppError('conflict', 'the console is taken');
    this.#taken.add(guest);
    const echo = (chunk: Buffer): void => {
      guest.console += chunk.toString();
      terminal.write(chunk);
    };
    terminal.on('data', echo);
    const ended = new Promise((resolve) => terminal.once('end', resolve));
    await Promise.race([ended, aborted(leave)]);
    terminal.off('data', echo);
    this.#taken.delete(guest);
  }
}
