// Says what is being done, and how long it took.

const started = Date.now();

function clock(): string {
  const seconds = Math.round((Date.now() - started) / 1000);
  return `${String(Math.floor(seconds / 60)).padStart(2, '0')}:${String(seconds % 60).padStart(2, '0')}`;
}

export function say(text: string): void {
  console.log(`[${clock()}] ${text}`);
}

/** Announces a step, runs it, and says how long it took when that was more than a moment. */
export async function step<T>(what: string, work: () => Promise<T>): Promise<T> {
  say(`${what} …`);
  const before = Date.now();
  const result = await work();
  const seconds = (Date.now() - before) / 1000;
  if (seconds >= 1) say(`${what}: done in ${seconds.toFixed(1)} s`);
  return result;
}
