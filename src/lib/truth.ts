// Words for true and false as OpenStack takes them (oslo.utils, strutils).

const WORDS: ReadonlyMap<string, boolean> = new Map([
  ...['1', 't', 'true', 'on', 'y', 'yes'].map((word) => [word, true] as const),
  ...['0', 'f', 'false', 'off', 'n', 'no'].map((word) => [word, false] as const),
]);

/** undefined: neither. */
export function truthOf(text: string): boolean | undefined {
  return WORDS.get(text.trim().toLowerCase());
}
