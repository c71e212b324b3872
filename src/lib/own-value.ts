// Tables that are asked with words of strangers.

/** What the table itself has under this key: `constructor` and its like are in none. */
export function ownValue<T>(table: Readonly<Record<string, T>>, key: string): T | undefined {
  return Object.hasOwn(table, key) ? table[key] : undefined;
}
