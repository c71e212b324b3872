// Lists of ports as forwards write them: "80,90-92".

export interface PortRange {
  readonly first: number;
  readonly last: number;
}

const MAX_PORT = 65_535;

/** Of a list that was checked; an empty one has none. */
export function portRanges(text: string): readonly PortRange[] {
  if (text.trim() === '') return [];
  return text.split(',').map((part) => {
    const [first = '', last = first] = part.trim().split('-');
    return { first: Number(first), last: Number(last) };
  });
}

/** LXD's complaint about a list; undefined: it is one. */
export function portComplaint(text: string): string | undefined {
  for (const part of text.split(',')) {
    const ends = part.trim().split('-');
    const bad = ends.find((end) => !/^\d{1,9}$/.test(end));
    if (bad !== undefined) return `strconv.ParseInt: parsing ${JSON.stringify(bad)}: invalid syntax`;
    const [first = 0, last = first] = ends.map(Number);
    if (ends.length > 2 || first < 1 || last > MAX_PORT || last < first) return `Invalid port range "${part.trim()}"`;
  }
  return undefined;
}

/** One by one. */
export function ports(text: string): readonly number[] {
  return portRanges(text).flatMap(({ first, last }) =>
    Array.from({ length: last - first + 1 }, (_, index) => first + index),
  );
}
