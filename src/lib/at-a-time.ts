// Work on many things, a few of them at a time.

/** Resolves when `work` is done for all items; at the first rejection nothing more is begun. */
export async function atATime<T>(count: number, items: Iterable<T>, work: (item: T) => Promise<void>): Promise<void> {
  const rest = Iterator.from(items);
  let failed = false;
  const worker = async () => {
    for (let next = rest.next(); !failed && next.done !== true; next = rest.next()) {
      try {
        await work(next.value);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: count }, worker));
}
