// A command whose output is a stream for somebody.
import { asError } from '#src/lib/errors.ts';
import { sleep } from '#src/lib/wait.ts';
import type { Argv, Host } from './host.ts';

const LIMIT_MS = 24 * 3600_000;
const GRACE_MS = 200;

export interface StreamedCommand {
  readonly argv: Argv;
  readonly use: (stream: NodeJS.ReadableStream) => Promise<void>;
  readonly signal: AbortSignal;
}

/** Resolves when the command has ended well and `use` has, too; when either fails the command is gone before this rejects. */
export async function streamed(host: Pick<Host, 'start'>, { argv, use, signal }: StreamedCommand): Promise<void> {
  const stop = new AbortController();
  const command = host.start(argv, { signal: AbortSignal.any([signal, stop.signal]), timeoutMs: LIMIT_MS });
  const failed = command.done.then(
    () => undefined,
    (error: unknown) => (stop.signal.aborted ? undefined : asError(error)),
  );
  try {
    await use(command.stdout);
  } catch (error) {
    // Whoever reads of a command that failed fails, too: what the command says is the reason.
    const reason = await Promise.race([failed, sleep(GRACE_MS, signal).catch(() => undefined)]);
    stop.abort(error);
    await failed;
    throw reason ?? error;
  }
  await command.done;
}
