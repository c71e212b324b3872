// Aliases of commands, as in lxc: the first words of a command line become others.
import { AppError } from '#src/lib/errors.ts';

const LIMIT = 20;

/**
 * The longest alias that the line begins with is replaced; `@ARGS@` in its text is where the rest of the line goes
 * (else at the end), `@N@` is the Nth word of it. An alias may use the name of the command that it stands for.
 */
export function expandAlias(argv: readonly string[], aliases: ReadonlyMap<string, string>): readonly string[] {
  let line = argv;
  const used = new Set<string>();
  for (let round = 0; round < LIMIT; round += 1) {
    const name = longest(
      line,
      [...aliases.keys()].filter((key) => !used.has(key)),
    );
    if (name === undefined) return line;
    used.add(name);
    line = replaced(line.slice(name.split(' ').length), aliases.get(name) ?? '');
  }
  throw new AppError('invalid', 'Aliases lead to each other without an end');
}

function longest(line: readonly string[], names: readonly string[]): string | undefined {
  const found = names.filter((name) => name.split(' ').every((word, index) => line[index] === word));
  return found.sort((a, b) => b.split(' ').length - a.split(' ').length)[0];
}

function replaced(rest: readonly string[], text: string): readonly string[] {
  const words = splitWords(text);
  const numbered = new Set<number>();
  const filled = words.map((word) =>
    word.replaceAll(/@(\d+)@/g, (_match, digits: string) => {
      const index = Number(digits) - 1;
      const value = rest[index];
      if (value === undefined) throw new AppError('invalid', `The alias needs ${digits} or more arguments`);
      numbered.add(index);
      return value;
    }),
  );
  const left = rest.filter((_word, index) => !numbered.has(index));
  if (!filled.includes('@ARGS@')) return [...filled, ...left];
  return filled.flatMap((word) => (word === '@ARGS@' ? left : [word]));
}

/** At spaces that are not within quotes. */
function splitWords(text: string): readonly string[] {
  return [...text.matchAll(/(?:[^\s"']|"[^"]*"|'[^']*')+/g)].map(([word]) =>
    word.replaceAll(/"([^"]*)"|'([^']*)'/g, '$1$2'),
  );
}
