// A command whose output is a stream for somebody.
import type { Argv, Host } from './host.ts';

const LIMIT_MS = 24 * 3600_000;

export interface StreamedCommand {
  readonly argv: Argv;
  readonly use: (stream: NodeJS.ReadableStream) => Promise<void>;
  readonly signal: AbortSignal;
}

/** Resolves when the command has ended well and `use` has, too; when either fails the command is gone before this rejects. */
export async function streamed(host: Pick<Host, 'start'>, { argv, use, signal }: StreamedCommand): Promise<void> {
  const stop = new AbortController();
  const command = host.start(argv, { signal: AbortSignal.any([signal, stop.signal]), timeoutMs: LIMIT_MS });
  command.done.catch(() => undefined);
  try {
    await use(command.stdout);
  } catch (error) {
    stop.abort(error);
    await command.done.catch(() => undefined);
    throw error;
  }
  await command.done;
}
