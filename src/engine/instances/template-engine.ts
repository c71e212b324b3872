// The part of Jinja (pongo2) that image templates use: output, if/elif/else, for, config_get(), comparisons, a few filters.
import {
  bad,
  Effort,
  evaluate,
  shortened,
  type TemplateScope,
  type TemplateValue,
  truthy,
} from './template-expressions.ts';

export type { TemplateScope, TemplateValue } from './template-expressions.ts';

/**
 * AppError 'invalid' for what this engine does not know (a file half rendered would be worse), and for what takes too long or
 * grows too large: no template of an honest image comes near the limits.
 */
export function renderTemplate(template: string, scope: TemplateScope): string {
  const pieces = split(template);
  const { text, next } = renderUntil(pieces, 0, { scope, live: true, ends: [], effort: new Effort() });
  if (next < pieces.length) throw bad(`unexpected {% ${shortened(pieces[next]?.body ?? '')} %}`);
  return text;
}

interface Piece {
  readonly kind: 'text' | 'output' | 'tag';
  readonly body: string;
}

const CLOSING: Readonly<Record<string, string>> = { '{{': '}}', '{%': '%}', '{#': '#}' };

/** One way through, however many brackets open that never close. */
function split(template: string): readonly Piece[] {
  const pieces: Piece[] = [];
  const open = /\{[{%#]/g;
  const unclosed = new Set<string>();
  let at = 0;
  let trimNext = false;
  const addText = (text: string) => pieces.push({ kind: 'text', body: trimNext ? text.trimStart() : text });
  for (let match = open.exec(template); match; match = open.exec(template)) {
    const [bracket] = match;
    const start = match.index + bracket.length;
    const end = unclosed.has(bracket) ? -1 : template.indexOf(CLOSING[bracket] ?? '', start);
    if (end === -1) {
      unclosed.add(bracket); // nor will any that follows
      open.lastIndex = match.index + 1;
      continue;
    }
    const { body, trimsBefore, trimsAfter } = inner(template.slice(start, end));
    const before = template.slice(at, match.index);
    const isRemark = bracket === '{#';
    addText(trimsBefore && !isRemark ? before.trimEnd() : before);
    at = end + 2;
    open.lastIndex = at;
    trimNext = trimsAfter && !isRemark;
    if (!isRemark) pieces.push({ kind: bracket === '{{' ? 'output' : 'tag', body });
  }
  addText(template.slice(at));
  return pieces;
}

/** What is between the brackets, without the dashes that trim the text around. */
function inner(text: string) {
  const trimsBefore = text.startsWith('-');
  const rest = trimsBefore ? text.slice(1) : text;
  const trimsAfter = rest.endsWith('-');
  return { body: (trimsAfter ? rest.slice(0, -1) : rest).trim(), trimsBefore, trimsAfter };
}

interface Rendering {
  readonly scope: TemplateScope;
  /** False: only looking for the end. */
  readonly live: boolean;
  /** Words of tags to stop before. */
  readonly ends: readonly string[];
  readonly effort: Effort;
}

interface Rendered {
  readonly text: string;
  /** Index of the piece that ended it. */
  readonly next: number;
}

function renderUntil(pieces: readonly Piece[], start: number, how: Rendering): Rendered {
  let text = '';
  for (let at = start; at < pieces.length; at++) {
    const piece = pieces[at];
    if (!piece) break;
    how.effort.step();
    if (piece.kind === 'tag') {
      const word = wordOf(piece);
      if (how.ends.includes(word)) return { text, next: at };
      const tag = how.effort.within(() => renderTag(pieces, at, how));
      text += tag.text;
      at = tag.next;
    } else if (how.live) {
      text += output(piece, how);
    }
  }
  if (how.ends.length > 0) throw bad(`missing {% ${how.ends.at(-1)} %}`);
  return { text, next: pieces.length };
}

function output({ kind, body }: Piece, { scope, effort }: Rendering): string {
  if (kind === 'output') return effort.show(evaluate(body, scope, effort));
  effort.count(body);
  return body;
}

function wordOf({ body }: Piece): string {
  return body.split(/\s+/, 1)[0] ?? '';
}

/** `next` is the index of the closing tag. */
function renderTag(pieces: readonly Piece[], at: number, how: Rendering): Rendered {
  const body = pieces[at]?.body ?? '';
  if (body.startsWith('if ')) return renderIf(pieces, at, how);
  if (body.startsWith('for ')) return renderFor(pieces, at, how);
  throw bad(`{% ${shortened(body)} %} is not supported`);
}

function renderIf(pieces: readonly Piece[], start: number, how: Rendering): Rendered {
  let text = '';
  let done = false;
  let at = start;
  for (;;) {
    const { body = '' } = pieces[at] ?? {};
    if (body === 'endif') return { text, next: at };
    const live = how.live && !done && holds(body, how);
    const branch = renderUntil(pieces, at + 1, { ...how, live, ends: ['elif', 'else', 'endif'] });
    if (live) {
      text = branch.text;
      done = true;
    }
    at = branch.next;
  }
}

/** Of an if, elif or else tag. */
function holds(tag: string, { scope, effort }: Rendering): boolean {
  return tag === 'else' || truthy(evaluate(tag.replace(/^\w+/, ''), scope, effort));
}

function renderFor(pieces: readonly Piece[], at: number, how: Rendering): Rendered {
  const match = /^for\s+(\w+)(?:\s*,\s*(\w+))?\s+in\s+(.+)$/s.exec(pieces[at]?.body ?? '');
  if (!match) throw bad(`{% ${shortened(pieces[at]?.body ?? '')} %} is not supported`);
  const [, first = '', second, source = ''] = match;
  const skipped = renderUntil(pieces, at + 1, { ...how, live: false, ends: ['endfor'] });
  if (!how.live) return { text: '', next: skipped.next };
  const rounds = entriesOf(evaluate(source, how.scope, how.effort)).map(([key, member]) => {
    const scope = { ...how.scope, [first]: key, ...(second !== undefined && { [second]: member }) };
    return renderUntil(pieces, at + 1, { ...how, scope, ends: ['endfor'] }).text;
  });
  return { text: rounds.join(''), next: skipped.next };
}

function entriesOf(value: TemplateValue): readonly (readonly [string, TemplateValue])[] {
  return typeof value === 'object' ? Object.entries(value) : [];
}
