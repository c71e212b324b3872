// Work that is repeated with growing pauses.

/**
 * Runs `work` after `firstMs`, then after twice that pause, and so on up to `mostMs`, for ever; a run ends before the next pause begins.
 * Keeps no process alive. Returns what ends it. `work` must not reject.
 */
export function repeatSlowing(work: () => Promise<void>, pauses: { firstMs: number; mostMs: number }): () => void {
  let timer: NodeJS.Timeout | undefined;
  let ended = false;
  const after = (pauseMs: number): void => {
    const pause = Math.min(pauseMs, pauses.mostMs);
    const run = async (): Promise<void> => {
      await work();
      if (!ended) after(pause * 2);
    };
    timer = setTimeout(() => void run(), pause).unref();
  };
  after(pauses.firstMs);
  return () => {
    ended = true;
    clearTimeout(timer);
  };
}
