// Tags of logical volumes that are ours: what a volume has to remember that is not in its files.

const OPTIONS = 'lighter_options=';
const REPLACES = 'lighter_replaces=';

/** On snapshots of a volume that is not there yet. */
export const UNFINISHED = 'lighter_unfinished';

/** Mount options of a volume's own. Tags have no commas; hexadecimal digits are fine with them. */
export function optionsTag(options: string): string {
  return `${OPTIONS}${Buffer.from(options).toString('hex')}`;
}

export function isOptionsTag(tag: string): boolean {
  return tag.startsWith(OPTIONS);
}

/** Empty: it has none of its own. */
export function optionsIn(tags: readonly string[]): string {
  const tag = tags.find(isOptionsTag) ?? OPTIONS;
  return Buffer.from(tag.slice(OPTIONS.length), 'hex').toString();
}

/** On work in progress that is complete when the volume of that name is out of its way. */
export function replacesTag(name: string): string {
  return `${REPLACES}${name}`;
}

export function replacedBy(tags: readonly string[]): string | undefined {
  return tags.find((tag) => tag.startsWith(REPLACES))?.slice(REPLACES.length);
}
