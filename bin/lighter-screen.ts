// The terminal that the client runs on: its size, its keys, the signals that come from it.
import { constants } from 'node:os';
import { isatty } from 'node:tty';
import type { Screen } from '#src/cli/terminal.ts';

const interrupted = new AbortController();
export const interruptSignal = interrupted.signal;

/** End the client, unless somebody takes them. */
const ENDING = ['SIGINT', 'SIGTERM'] as const;
/** Sent on to a program at the other end while there is one. */
const FORWARDED = [...ENDING, 'SIGHUP', 'SIGQUIT', 'SIGABRT', 'SIGUSR1', 'SIGUSR2', 'SIGCONT'] as const;

let takers = 0;
for (const signal of ENDING) {
  process.on(signal, () => {
    if (takers > 0) return;
    // The second one does not wait for anything.
    if (interrupted.signal.aborted) process.exit(128 + constants.signals[signal]);
    interrupted.abort(new Error('interrupted'));
  });
}

export const screen: Screen = {
  isInput: isatty(0),
  isOutput: isatty(1),
  type: process.env['TERM'],
  size: () => ({ width: process.stdout.columns || 80, height: process.stdout.rows || 24 }),
  raw: () => {
    process.stdin.setRawMode(true);
    return { [Symbol.dispose]: () => void process.stdin.setRawMode(false) };
  },
  onResize: (listener) => {
    process.stdout.on('resize', listener);
    return { [Symbol.dispose]: () => void process.stdout.off('resize', listener) };
  },
  takeSignals: (listener) => {
    const forward = (_name: string, signal: number): void => listener(signal);
    takers += 1;
    for (const signal of FORWARDED) process.on(signal, forward);
    return {
      [Symbol.dispose]: () => {
        takers -= 1;
        for (const signal of FORWARDED) process.off(signal, forward);
      },
    };
  },
};
