// Names of interfaces inside a guest.

/** `wanted`, or else the first ethN that nobody has. */
export function freeName(wanted: string, taken: readonly string[]): string {
  if (!taken.includes(wanted)) return wanted;
  for (let index = 0; ; index += 1) if (!taken.includes(`eth${index}`)) return `eth${index}`;
}
