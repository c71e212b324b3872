// Time limits of the driver's work: one that is over is the engine's failure, not the caller's cancellation.
import { EngineUnreachableError } from '#src/client/errors.ts';
import { AppError } from '#src/lib/errors.ts';

/** Runs `work` with the caller's signal limited to `ms`; AppError 'unavailable' when the limit ended it. */
export async function within<T>(
  what: string,
  ms: number,
  signal: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const limit = AbortSignal.timeout(ms);
  try {
    return await work(signal ? AbortSignal.any([signal, limit]) : limit);
  } catch (error) {
    // shown to the owner of an instance, who has no use for paths of the host
    if (error instanceof EngineUnreachableError) {
      throw new AppError('unavailable', 'the container engine does not answer', { cause: error });
    }
    if (!limit.aborted || signal?.aborted === true) throw error;
    throw new AppError('unavailable', `${what}: not done within ${ms / 1000} s`, { cause: error });
  }
}
