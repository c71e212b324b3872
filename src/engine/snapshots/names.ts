// Names of snapshots: what they may be, and the next one by a pattern (`snap%d`, `{{ creation_date|date:'2006-01-02' }}`).
import { AppError } from '#src/lib/errors.ts';
import { renderTemplate } from '../instances/template-engine.ts';

const RESERVED = ['/', '?', '&', '+'];

/** AppError 'invalid' with LXD's text. Names become parts of paths: what LXD lets through and a path does not bear is refused, too. */
export function validateSnapshotName(name: string): void {
  const found = RESERVED.find((character) => name.includes(character));
  if (found !== undefined) throw new AppError('invalid', `Invalid snapshot name: Cannot contain "${found}"`);
  // oxlint-disable-next-line no-control-regex -- those are meant
  if (name === '' || name === '.' || name === '..' || name.length > 200 || /[\u0000-\u0020\u007f@#]/u.test(name)) {
    throw new AppError('invalid', `Invalid snapshot name: "${name}"`);
  }
}

export interface NameQuery {
  /** Empty: `snap%d`. */
  readonly pattern: string;
  readonly taken: readonly string[];
  readonly now: Date;
}

/** A name that is not taken. AppError 'invalid' for a pattern that is none. */
export function nextSnapshotName({ pattern, taken, now }: NameQuery): string {
  const wanted = pattern === '' ? 'snap%d' : pattern;
  const name = wanted.includes('{') ? renderTemplate(wanted, { creation_date: now.toISOString() }) : wanted;
  const pieces = name.split('%d');
  if (pieces.length > 2) throw new AppError('invalid', "Snapshot pattern may contain '%d' only once");
  if (pieces.length === 2) return numbered(pieces, taken);
  return taken.includes(name) ? numbered([`${name}-`, ''], taken) : name;
}

/** One more than the highest number in use. */
function numbered([before = '', after = '']: readonly string[], taken: readonly string[]): string {
  let next = 0;
  for (const name of taken) {
    if (!name.startsWith(before) || !name.endsWith(after)) continue;
    const digits = name.slice(before.length, name.length - after.length);
    if (/^\d{1,9}$/u.test(digits)) next = Math.max(next, Number(digits) + 1);
  }
  return `${before}${next}${after}`;
}
