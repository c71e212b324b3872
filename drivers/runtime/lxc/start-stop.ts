// What liblxc's log says of a start that failed, and how an init wants to be asked to stop.
import type { Host } from '#src/host/host.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { RuntimeContainer } from '../driver.ts';

/** SIGRTMIN+3 of glibc: what systemd takes for "halt"; its bit in SigBlk says whether init waits for it. */
const SIGRTMIN_PLUS_3 = 37;
const SIGPWR = 30;
const ERRORS_SHOWN = 4;

/** With the last errors of its log. */
export async function startError(host: Host, container: RuntimeContainer, cause: unknown): Promise<AppError> {
  const log = await host.readFile(container.logPath).catch(() => '');
  const errors = log.split('\n').filter((line) => / (ERROR|FATAL) +/.test(line));
  const last = errors.slice(-ERRORS_SHOWN).map((line) => line.replace(/^.* (ERROR|FATAL) +\S+ - \S+ - /, ''));
  const detail = last.length > 0 ? last.join('; ') : messageOf(cause);
  return new AppError('internal', `Failed to run: lxc-start ${container.name}: ${detail}`, { cause });
}

/** The number of the signal by which the init with this pid is asked to stop. */
export async function haltSignal(host: Host, pid: number): Promise<number> {
  const status = await host.readFile(`/proc/${pid}/status`).catch(() => '');
  const blocked = BigInt(`0x${/^SigBlk:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
  const waitsForHalt = ((blocked >> BigInt(SIGRTMIN_PLUS_3 - 1)) & 1n) === 1n;
  return waitsForHalt ? SIGRTMIN_PLUS_3 : SIGPWR;
}
