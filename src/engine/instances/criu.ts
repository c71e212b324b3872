// Whether the state of a container's memory could be kept on this host, and the exact reason why it is not.
import { CommandError } from '#src/host/command-error.ts';
import type { Host } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';

const CHECK_MS = 30_000;
const LAST_LINES = 3;

/** Rejects always: nothing is done to the container. `doing` begins the message: "Unable to create a stateful snapshot". */
export async function refuseStateful(host: Pick<Host, 'run'>, doing: string, signal: AbortSignal): Promise<never> {
  await checkCriu(host, doing, signal);
  throw new AppError('unsupported', `${doing}. This server does not keep the state of running instances`);
}

async function checkCriu(host: Pick<Host, 'run'>, doing: string, signal: AbortSignal): Promise<void> {
  try {
    await host.run(['criu', 'check'], { signal, timeoutMs: CHECK_MS });
  } catch (cause) {
    if (!(cause instanceof CommandError)) throw cause;
    throw new AppError('unsupported', `${doing}. ${reasonOf(cause)}`, { cause });
  }
}

/** The end of what CRIU said. */
function reasonOf({ cause, message, stderr }: CommandError): string {
  if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return "CRIU isn't installed";
  if (stderr.trim() === '') return `CRIU does not work on this host: ${message}`;
  const lines = stderr.split('\n').filter((line) => line.trim() !== '');
  const last = lines.slice(-LAST_LINES).map((line) => line.trim());
  return `CRIU does not work on this host: ${last.join('; ')}`;
}
