// Processes: the only module that starts any. A process that was started is gone before its promise settles.
import { closeSync, openSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { AppError, asError } from '#src/lib/errors.ts';
import { CommandError } from './command-error.ts';
import { commandPoint, startedPoint } from './faults.ts';
import type { Argv, RunningCommand, RunOptions, RunResult } from './host.ts';
import { type Spawned, spawnProgram } from './spawn.ts';

const DEFAULT_TIMEOUT_MS = 60_000;
const MAX_STDOUT_BYTES = 256 * 1024 * 1024;
const MAX_STDERR_BYTES = 256 * 1024;
/** What a program that went into the background may hold our pipes open after its parent ended. */
const PIPES_GRACE_MS = 2000;
const FILE_MODE = 0o600;
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

type StartOptions = Omit<RunOptions, 'input'>;

/** Collects the end of a stream (stderr), so that what a program said last is kept. */
class Tail {
  #text = '';

  add(chunk: Buffer): void {
    this.#text += chunk.toString();
    if (this.#text.length > 2 * MAX_STDERR_BYTES) this.#text = this.#text.slice(-MAX_STDERR_BYTES);
  }

  get text(): string {
    return this.#text;
  }
}

/** One process and what ends it early. */
class Supervised {
  readonly child: Spawned;
  readonly stderr = new Tail();
  readonly done: Promise<Omit<RunResult, 'stdout'>>;
  readonly #argv: Argv;
  #cause: Error | undefined;

  constructor(argv: Argv, options: StartOptions) {
    this.#argv = argv;
    options.signal?.throwIfAborted();
    commandPoint(argv);
    this.child = spawnWith(argv, options);
    startedPoint(argv);
    this.child.stderr.on('data', (chunk: Buffer) => {
      this.stderr.add(chunk);
      options.onStderr?.(chunk);
    });
    // A program may end without reading its input; its exit code tells what that means.
    this.child.stdin.on('error', () => {});
    this.done = this.#wait(options);
    this.done.catch(() => {}); // whoever awaits it gets the error; who only reads the output does not crash for it
  }

  /** Ends the process (and all of its group) for a reason that becomes the cause of the rejection. */
  kill(cause: Error): void {
    this.#cause ??= cause;
    killGroup(this.child);
  }

  async #wait({
    signal,
    timeoutMs = DEFAULT_TIMEOUT_MS,
    okExitCodes = [0],
  }: StartOptions): Promise<Omit<RunResult, 'stdout'>> {
    const onAbort = () => this.kill(asError(signal?.reason));
    signal?.addEventListener('abort', onAbort, { once: true });
    const timer = Number.isFinite(timeoutMs)
      ? setTimeout(() => this.kill(new AppError('unavailable', `timed out after ${timeoutMs} ms`)), timeoutMs)
      : undefined;
    try {
      const exitCode = await closed(this.child, () => this.#cause !== undefined).catch((error: unknown) => {
        this.#cause ??= asError(error);
        return null;
      });
      const stderr = this.stderr.text;
      if (this.#cause) throw new CommandError(this.#argv, { exitCode: null, stderr, cause: this.#cause });
      if (exitCode === null || !okExitCodes.includes(exitCode))
        throw new CommandError(this.#argv, { exitCode, stderr });
      return { exitCode, stderr };
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    }
  }
}

function spawnWith(argv: Argv, { env, cwd = '/', inputFile, errorFile, withRelay = false }: StartOptions): Spawned {
  const opened: number[] = [];
  const open = (path: string | undefined, flags: string): number | undefined => {
    if (path === undefined) return undefined;
    opened.push(openSync(path, flags, FILE_MODE));
    return opened.at(-1);
  };
  const input = open(inputFile, 'r');
  try {
    const errors = open(errorFile, 'a');
    return spawnProgram({ argv, cwd, input, errors, withRelay, env: { PATH, LC_ALL: 'C.UTF-8', ...env } });
  } catch (error) {
    throw new CommandError(argv, { exitCode: null, stderr: '', cause: error });
  } finally {
    for (const fd of opened) closeSync(fd);
  }
}

/** The program leads a process group: its children go along. */
function killGroup({ pid }: Spawned): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // the group is gone
  }
}

/**
 * Resolves when the program has ended and all that it said has been read, however slowly, unless it was killed; rejects when it was not
 * started. What others that hold its pipes may say later is not waited for.
 */
async function closed({ exit, stdout, isUnread, stderr }: Spawned, isKilled: () => boolean): Promise<number | null> {
  const read = Promise.all([over(stdout), over(stderr)]);
  const exitCode = await exit;
  const grace = setInterval(() => {
    stderr.destroy();
    if (isKilled() || !isUnread()) stdout.destroy();
  }, PIPES_GRACE_MS);
  await read;
  clearInterval(grace);
  return exitCode;
}

function over(stream: Spawned['stdout']): Promise<void> {
  return new Promise((resolve) => {
    stream.once('close', () => resolve());
  });
}

export function launch(argv: Argv, options: StartOptions): RunningCommand {
  const { child, done } = new Supervised(argv, options);
  const { pid = -1, stdin, stdout, relay } = child;
  // As with standard input: the program's end tells what a broken pipe means.
  relay?.input.on('error', () => {});
  return { pid, stdin, stdout, ...(relay ? { relay } : {}), done };
}

export async function runToEnd(argv: Argv, { input, ...options }: RunOptions): Promise<RunResult> {
  const command = new Supervised(argv, options);
  const chunks: Buffer[] = [];
  let bytes = 0;
  command.child.stdout.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes <= MAX_STDOUT_BYTES) chunks.push(chunk);
    else command.kill(new AppError('internal', `wrote more than ${MAX_STDOUT_BYTES} bytes`));
  });
  const fed = feed(command, input);
  const result = await command.done;
  await fed;
  return { ...result, stdout: Buffer.concat(chunks).toString() };
}

async function feed(command: Supervised, input: RunOptions['input']): Promise<void> {
  const { stdin } = command.child;
  if (input === undefined || typeof input === 'string' || input instanceof Uint8Array) {
    stdin.end(input);
    return;
  }
  let isCutOff = false;
  input.once('close', () => {
    isCutOff = !stdin.destroyed && !('readableEnded' in input && input.readableEnded === true);
  });
  try {
    await pipeline(input, stdin);
  } catch (error) {
    // The program stopped reading: its exit code decides. Anything else is a broken source, and half an input is no input.
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    const hasStopped = code === 'EPIPE' || (code === 'ERR_STREAM_PREMATURE_CLOSE' && !isCutOff);
    if (!hasStopped) command.kill(asError(error));
  }
}
