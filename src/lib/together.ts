// Works side by side of which none is left alone.

/** Resolves when all have; rejects with the first failure, but not before every one has ended: what they did can be undone then. */
export async function together<T extends readonly Promise<unknown>[] | []>(
  ...works: T
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  await Promise.allSettled(works);
  return Promise.all(works);
}

/** The same promise for everybody who asks. */
export function once<T>(work: () => Promise<T>): () => Promise<T> {
  let begun: Promise<T> | undefined;
  return () => (begun ??= work());
}
