// The process around the client, as an interface: tests have their own.
import type { Readable, Writable } from 'node:stream';
import type { Doctor } from '#src/lib/finding.ts';

export interface Terminal {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  /** Standard input as text, to its end. */
  readonly readInput: () => Promise<string>;
  /** Standard error is a terminal: progress may overwrite itself. */
  readonly isInteractive: boolean;
  readonly signal: AbortSignal;
  readonly version: string;
  /** Where the engine of this machine listens. */
  readonly socketPath: string;
  /** Remotes, aliases, our certificate and those of the remotes. */
  readonly configDirectory: string;
  readonly streams: Streams;
  readonly screen: Screen;
  /** Opens the user's editor on a file; rejects when it fails. */
  readonly edit: (file: string) => Promise<void>;
  /** Of the machine that this program runs on; loaded when it is wanted. */
  readonly doctor: () => Promise<Doctor>;
}

/** The standard streams, byte by byte. */
export interface Streams {
  readonly stdin: Readable;
  readonly stdout: Writable;
  readonly stderr: Writable;
}

export interface Size {
  readonly width: number;
  readonly height: number;
}

export interface Screen {
  /** Standard input is a terminal. */
  readonly isInput: boolean;
  /** Standard output is one. */
  readonly isOutput: boolean;
  /** What somebody who sees this terminal calls it (TERM). */
  readonly type: string | undefined;
  size(): Size;
  /** Every key goes to the reader of standard input, until disposed. */
  raw(): Disposable;
  onResize(listener: () => void): Disposable;
  /** Signals (by number) go to the listener and no longer end this program, until disposed. */
  takeSignals(listener: (signal: number) => void): Disposable;
}
