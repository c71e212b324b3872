// The life of a daemon: services started in order, stopped in reverse.
import type { Log } from './log.ts';
import { aborted } from './wait.ts';

export interface Service {
  readonly name: string;
  start(signal: AbortSignal): Promise<void>;
  /** Stops taking work, finishes or hands back what is in flight, closes. `signal` aborts at the end of the grace time. */
  stop(signal: AbortSignal): Promise<void>;
  /** A grace time of its own, for what may take long. */
  graceMs?(): number;
}

export interface RunOptions {
  readonly until: AbortSignal;
  readonly log: Log;
  readonly graceMs?: number;
}

/** Starts services in order, runs until `until` aborts, and stops in reverse order within `graceMs`. */
export async function runServices(
  services: readonly Service[],
  { until, log, graceMs = 30_000 }: RunOptions,
): Promise<void> {
  const started: Service[] = [];
  try {
    for (const service of services) {
      until.throwIfAborted();
      started.push(service);
      await service.start(until);
    }
    await aborted(until);
  } catch (error) {
    if (!until.aborted) throw error;
  } finally {
    let common: AbortSignal | undefined;
    for (const service of started.toReversed()) {
      const deadline = service.graceMs
        ? AbortSignal.timeout(service.graceMs())
        : (common ??= AbortSignal.timeout(graceMs));
      await Promise.race([service.stop(deadline), aborted(deadline)]).catch((error: unknown) => {
        log.warn('service did not stop cleanly', { service: service.name, error });
      });
    }
  }
}
