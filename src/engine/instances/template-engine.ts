// The part of Jinja (pongo2) that image templates use: output, if/elif/else, for, config_get(), comparisons, a few filters.
import { AppError } from '#src/lib/errors.ts';
import { formatGoDate } from '../snapshots/go-date.ts';

export type TemplateValue =
  | string
  | number
  | boolean
  | undefined
  | { readonly [key: string]: TemplateValue }
  | TemplateFunction;
export type TemplateFunction = (...args: readonly TemplateValue[]) => TemplateValue;
export type TemplateScope = Readonly<Record<string, TemplateValue>>;

/** AppError 'invalid' for what this engine does not know: a file half rendered would be worse. */
export function renderTemplate(template: string, scope: TemplateScope): string {
  const pieces = split(template);
  const { text, next } = renderUntil(pieces, 0, { scope, live: true, ends: [] });
  if (next < pieces.length) throw bad(`unexpected {% ${pieces[next]?.body} %}`);
  return text;
}

interface Piece {
  readonly kind: 'text' | 'output' | 'tag';
  readonly body: string;
}

function split(template: string): readonly Piece[] {
  const pieces: Piece[] = [];
  let at = 0;
  let trimNext = false;
  const addText = (text: string) => pieces.push({ kind: 'text', body: trimNext ? text.trimStart() : text });
  for (const match of template.matchAll(/\{#.*?#\}|\{\{-?(.*?)(-?)\}\}|\{%-?(.*?)(-?)%\}/gs)) {
    const before = template.slice(at, match.index);
    addText(match[0].startsWith('{{-') || match[0].startsWith('{%-') ? before.trimEnd() : before);
    at = match.index + match[0].length;
    trimNext = match[2] === '-' || match[4] === '-';
    if (match[1] !== undefined) pieces.push({ kind: 'output', body: match[1].trim() });
    else if (match[3] !== undefined) pieces.push({ kind: 'tag', body: match[3].trim() });
  }
  addText(template.slice(at));
  return pieces;
}

interface Rendering {
  readonly scope: TemplateScope;
  /** False: only looking for the end. */
  readonly live: boolean;
  /** Words of tags to stop before. */
  readonly ends: readonly string[];
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
    if (piece.kind === 'tag') {
      const word = wordOf(piece);
      if (how.ends.includes(word)) return { text, next: at };
      const inner = renderTag(pieces, at, how);
      text += inner.text;
      at = inner.next;
    } else if (how.live) {
      text += piece.kind === 'text' ? piece.body : show(evaluate(piece.body, how.scope));
    }
  }
  if (how.ends.length > 0) throw bad(`missing {% ${how.ends.at(-1)} %}`);
  return { text, next: pieces.length };
}

function wordOf({ body }: Piece): string {
  return body.split(/\s+/, 1)[0] ?? '';
}

/** `next` is the index of the closing tag. */
function renderTag(pieces: readonly Piece[], at: number, how: Rendering): Rendered {
  const body = pieces[at]?.body ?? '';
  if (body.startsWith('if ')) return renderIf(pieces, at, how);
  if (body.startsWith('for ')) return renderFor(pieces, at, how);
  throw bad(`{% ${body} %} is not supported`);
}

function renderIf(pieces: readonly Piece[], start: number, how: Rendering): Rendered {
  let text = '';
  let done = false;
  let at = start;
  for (;;) {
    const { body = '' } = pieces[at] ?? {};
    if (body === 'endif') return { text, next: at };
    const live = how.live && !done && holds(body, how.scope);
    const inner = renderUntil(pieces, at + 1, { scope: how.scope, live, ends: ['elif', 'else', 'endif'] });
    if (live) {
      text = inner.text;
      done = true;
    }
    at = inner.next;
  }
}

/** Of an if, elif or else tag. */
function holds(tag: string, scope: TemplateScope): boolean {
  return tag === 'else' || truthy(evaluate(tag.replace(/^\w+/, ''), scope));
}

function renderFor(pieces: readonly Piece[], at: number, how: Rendering): Rendered {
  const match = /^for\s+(\w+)(?:\s*,\s*(\w+))?\s+in\s+(.+)$/s.exec(pieces[at]?.body ?? '');
  if (!match) throw bad(`{% ${pieces[at]?.body} %} is not supported`);
  const [, first = '', second, source = ''] = match;
  const skipped = renderUntil(pieces, at + 1, { ...how, live: false, ends: ['endfor'] });
  if (!how.live) return { text: '', next: skipped.next };
  const rounds = entriesOf(evaluate(source, how.scope)).map(([key, member]) => {
    const scope = { ...how.scope, [first]: key, ...(second !== undefined && { [second]: member }) };
    return renderUntil(pieces, at + 1, { scope, live: true, ends: ['endfor'] }).text;
  });
  return { text: rounds.join(''), next: skipped.next };
}

function entriesOf(value: TemplateValue): readonly (readonly [string, TemplateValue])[] {
  return typeof value === 'object' ? Object.entries(value) : [];
}

const TOKEN = /\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\d+|[A-Za-z_]\w*|==|!=|&&|\|\||[().,|:!])/y;

function tokens(source: string): string[] {
  const found: string[] = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < source.trimEnd().length) {
    const match = TOKEN.exec(source);
    if (!match) throw bad(`cannot read "${source.trim()}"`);
    found.push(match[1] ?? '');
  }
  return found;
}

function evaluate(source: string, scope: TemplateScope): TemplateValue {
  const expression = new Expression(tokens(source), scope);
  return expression.whole();
}

/** Recursive descent: or, and, not, comparison, filters, then names and literals. */
class Expression {
  readonly #tokens: string[];
  readonly #scope: TemplateScope;

  constructor(tokens: string[], scope: TemplateScope) {
    this.#tokens = tokens;
    this.#scope = scope;
  }

  whole(): TemplateValue {
    const value = this.#or();
    if (this.#tokens.length > 0) throw bad(`unexpected "${this.#tokens.join(' ')}"`);
    return value;
  }

  #take(...words: readonly string[]): boolean {
    if (!words.includes(this.#tokens[0] ?? '')) return false;
    this.#tokens.shift();
    return true;
  }

  #or(): TemplateValue {
    let value = this.#and();
    while (this.#take('or', '||')) {
      const right = this.#and();
      value = truthy(value) || truthy(right);
    }
    return value;
  }

  #and(): TemplateValue {
    let value = this.#not();
    while (this.#take('and', '&&')) {
      const right = this.#not();
      value = truthy(value) && truthy(right);
    }
    return value;
  }

  #not(): TemplateValue {
    return this.#take('not', '!') ? !truthy(this.#not()) : this.#comparison();
  }

  #comparison(): TemplateValue {
    const left = this.#filtered();
    if (this.#take('==')) return show(left) === show(this.#filtered());
    if (this.#take('!=')) return show(left) !== show(this.#filtered());
    if (this.#take('in')) return contains(this.#filtered(), left);
    return left;
  }

  #filtered(): TemplateValue {
    let value = this.#primary();
    while (this.#take('|')) {
      const name = this.#tokens.shift() ?? '';
      const argument = this.#take(':') ? this.#primary() : undefined;
      value = filter(name, value, argument);
    }
    return value;
  }

  #primary(): TemplateValue {
    const token = this.#tokens.shift();
    if (token === undefined) throw bad('an expression is missing');
    if (token === '(') {
      const value = this.#or();
      if (!this.#take(')')) throw bad('missing )');
      return value;
    }
    if (/^["']/.test(token)) return token.slice(1, -1).replace(/\\(.)/g, '$1');
    if (/^\d/.test(token)) return Number(token);
    if (token === 'true' || token === 'True') return true;
    if (token === 'false' || token === 'False') return false;
    return this.#name(token);
  }

  #name(first: string): TemplateValue {
    let value = member(this.#scope, first);
    for (;;) {
      if (this.#take('.')) value = member(value, this.#tokens.shift() ?? '');
      else if (this.#take('(')) value = call(value, this.#arguments(), first);
      else return value;
    }
  }

  #arguments(): TemplateValue[] {
    const args: TemplateValue[] = [];
    if (this.#take(')')) return args;
    do args.push(this.#or());
    while (this.#take(','));
    if (!this.#take(')')) throw bad('missing )');
    return args;
  }
}

function member(value: TemplateValue, name: string): TemplateValue {
  return typeof value === 'object' && Object.hasOwn(value, name) ? value[name] : undefined;
}

function call(value: TemplateValue, args: readonly TemplateValue[], name: string): TemplateValue {
  if (typeof value !== 'function') throw bad(`${name} is not a function`);
  return value(...args);
}

function filter(name: string, value: TemplateValue, argument: TemplateValue): TemplateValue {
  switch (name) {
    case 'safe':
      return value;
    case 'default':
      return truthy(value) ? value : argument;
    case 'lower':
      return show(value).toLowerCase();
    case 'upper':
      return show(value).toUpperCase();
    case 'trim':
      return show(value).trim();
    case 'date':
      return formatGoDate(new Date(show(value)), show(argument));
    default:
      throw bad(`filter ${name} is not supported`);
  }
}

function contains(container: TemplateValue, value: TemplateValue): boolean {
  if (typeof container === 'object') return Object.hasOwn(container, show(value));
  return show(container).includes(show(value));
}

function truthy(value: TemplateValue): boolean {
  return value !== undefined && value !== '' && value !== false && value !== 0;
}

function show(value: TemplateValue): string {
  if (value === undefined || typeof value === 'function') return '';
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

function bad(reason: string): AppError {
  return new AppError('invalid', `Failed to render template: ${reason}`);
}
