// Works side by side of which none is left alone.

/** Resolves when all have; rejects with the first failure, but not before every one has ended: what they did can be undone then. */
export async function together<T extends readonly unknown[]>(...works: { [K in keyof T]: Promise<T[K]> }): Promise<T> {
  await Promise.allSettled(works);
  return (await Promise.all(works)) as unknown as T;
}
