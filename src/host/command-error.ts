// A command that failed: what was run, how it ended and what it said.
import { AppError, messageOf, type ErrorKind } from '#src/lib/errors.ts';
import type { Argv } from './host.ts';

export interface CommandEnd {
  /** null: it never ran, or was killed. */
  readonly exitCode: number | null;
  readonly stderr: string;
  readonly cause?: unknown;
}

const SHOWN_STDERR = 2000;

/** Rejection of Host.run() and Host.start(). `unavailable` when it was cut off (abort, time limit), else `internal`. */
export class CommandError extends AppError {
  readonly argv: Argv;
  readonly exitCode: number | null;
  readonly stderr: string;

  constructor(argv: Argv, { exitCode, stderr, cause }: CommandEnd) {
    super(kindFor(exitCode, cause), message(argv, { exitCode, stderr, cause }), cause === undefined ? {} : { cause });
    this.argv = argv;
    this.exitCode = exitCode;
    this.stderr = stderr;
  }
}

function kindFor(exitCode: number | null, cause: unknown): ErrorKind {
  return exitCode === null && cause !== undefined ? 'unavailable' : 'internal';
}

function message(argv: Argv, { exitCode, stderr, cause }: CommandEnd): string {
  const said = stderr.trim().slice(-SHOWN_STDERR);
  const why = cause === undefined ? `exit status ${exitCode ?? 'unknown'}` : messageOf(cause);
  return `${argv.slice(0, 3).join(' ')}: ${why}${said === '' ? '' : `: ${said}`}`;
}
