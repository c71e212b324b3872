// The log of who wants none. Apart from log.ts, so that a small program does not load a logger for it.
import type { Log } from './log.ts';

/** Discards everything; for tests and for libraries used without a log. */
export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {} };
