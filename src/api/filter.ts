// LXD's filter expressions: FIELD OP VALUE [and|or …], evaluated from left to right (lxd-engine-contract section 0).
import { ApiError } from './envelope.ts';

interface Clause {
  readonly joint: 'and' | 'or';
  readonly negated: boolean;
  readonly path: string;
  readonly operator: 'eq' | 'ne';
  readonly value: string;
}

export type Filter = (object: object) => boolean;

/** Words; a quoted one keeps its blanks. */
function wordsOf(text: string): readonly string[] {
  return [...text.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/gu)].map(([, quoted, plain]) =>
    quoted === undefined ? (plain ?? '') : quoted.replaceAll(/\\(.)/gu, '$1'),
  );
}

function refuse(reason: string): never {
  throw new ApiError(500, `Invalid filter: ${reason}`);
}

/** Absent or empty: everything passes. */
export function parseFilter(text: string | undefined): Filter {
  const words = wordsOf(text ?? '');
  if (words.length === 0) return () => true;
  const clauses: Clause[] = [];
  for (let at = 0; at < words.length; ) {
    const { clause, next } = readClause(words, at, clauses.length === 0);
    clauses.push(clause);
    at = next;
  }
  return (object) =>
    clauses.reduce((passes, clause) => {
      const matches = matchesClause(object, clause);
      return clause.joint === 'and' ? passes && matches : passes || matches;
    }, true);
}

function readClause(words: readonly string[], start: number, first: boolean): { clause: Clause; next: number } {
  const { joint, at } = first ? { joint: 'and' as const, at: start } : readJoint(words, start);
  const negated = words[at]?.toLowerCase() === 'not';
  const from = negated ? at + 1 : at;
  const [path, operator, value] = words.slice(from, from + 3);
  if (path === undefined) refuse('incomplete not clause');
  if (operator === undefined) refuse('clause has no operator');
  if (value === undefined) refuse('clause has no value');
  if (operator !== 'eq' && operator !== 'ne') refuse(`invalid operator "${operator}"`);
  return { clause: { joint, negated, path, operator, value }, next: from + 3 };
}

function readJoint(words: readonly string[], start: number): { joint: Clause['joint']; at: number } {
  const joint = words[start]?.toLowerCase();
  if (joint !== 'and' && joint !== 'or') refuse('invalid clause composition');
  if (start + 1 >= words.length) refuse('unterminated compound clause');
  return { joint, at: start + 1 };
}

function matchesClause(object: object, { negated, path, operator, value }: Clause): boolean {
  const actual = valueAt(object, path);
  const equal = typeof actual === 'string' ? actual === value : JSON.stringify(actual) === value;
  return (operator === 'eq') === equal ? !negated : negated;
}

/** Keys of configurations hold dots themselves: the longest key that fits wins. */
function valueAt(object: unknown, path: string): unknown {
  if (typeof object !== 'object' || object === null) return undefined;
  if (Object.hasOwn(object, path)) return (object as Record<string, unknown>)[path];
  for (let dot = path.lastIndexOf('.'); dot > 0; dot = path.lastIndexOf('.', dot - 1)) {
    const head = path.slice(0, dot);
    if (Object.hasOwn(object, head)) return valueAt((object as Record<string, unknown>)[head], path.slice(dot + 1));
  }
  return undefined;
}
