// The expressions of image templates, and how much work a template may make: anybody may have written it.
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

/** Pieces and words. */
const MAX_STEPS = 200_000;
const MAX_CHARACTERS = 32 << 20;
const MAX_DEPTH = 100;
const MAX_TOKENS = 1000;

/** Of one rendering; rendering is one piece of work that nothing interrupts, so it must be short. */
export class Effort {
  #steps = 0;
  #characters = 0;
  #depth = 0;

  step(count = 1): void {
    this.#steps += count;
    if (this.#steps > MAX_STEPS) throw bad('it takes too many steps');
  }

  within<T>(work: () => T): T {
    if (++this.#depth > MAX_DEPTH) throw bad('it is nested too deeply');
    try {
      return work();
    } finally {
      this.#depth--;
    }
  }

  /** The text of a value. */
  show(value: TemplateValue): string {
    const text = textOf(value);
    this.count(text);
    return text;
  }

  count(text: string): void {
    this.#characters += text.length;
    if (this.#characters > MAX_CHARACTERS) throw bad('its output is too long');
  }
}

const TOKEN = /\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\d+|[A-Za-z_]\w*|==|!=|&&|\|\||[().,|:!])/y;

function tokens(source: string): string[] {
  const found: string[] = [];
  const end = source.trimEnd().length;
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < end) {
    const match = TOKEN.exec(source);
    if (!match) throw bad(`cannot read "${shortened(source.trim())}"`);
    if (found.length === MAX_TOKENS) throw bad('an expression is too long');
    found.push(match[1] ?? '');
  }
  return found;
}

export function evaluate(source: string, scope: TemplateScope, effort: Effort): TemplateValue {
  effort.count(source);
  const words = tokens(source);
  effort.step(words.length);
  const expression = new Expression(words, scope, effort);
  return expression.whole();
}

/** Recursive descent: or, and, not, comparison, filters, then names and literals. */
class Expression {
  readonly #tokens: string[];
  readonly #scope: TemplateScope;
  readonly #effort: Effort;

  constructor(tokens: string[], scope: TemplateScope, effort: Effort) {
    this.#tokens = tokens;
    this.#scope = scope;
    this.#effort = effort;
  }

  whole(): TemplateValue {
    const value = this.#or();
    if (this.#tokens.length > 0) throw bad(`unexpected "${shortened(this.#tokens.join(' '))}"`);
    return value;
  }

  #take(...words: readonly string[]): boolean {
    if (!words.includes(this.#tokens[0] ?? '')) return false;
    this.#tokens.shift();
    return true;
  }

  #or(): TemplateValue {
    return this.#effort.within(() => this.#alternatives());
  }

  #alternatives(): TemplateValue {
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
    return this.#take('not', '!') ? !truthy(this.#effort.within(() => this.#not())) : this.#comparison();
  }

  #comparison(): TemplateValue {
    const left = this.#filtered();
    if (this.#take('==')) return this.#show(left) === this.#show(this.#filtered());
    if (this.#take('!=')) return this.#show(left) !== this.#show(this.#filtered());
    if (this.#take('in')) return this.#contains(this.#filtered(), left);
    return left;
  }

  #show(value: TemplateValue): string {
    return this.#effort.show(value);
  }

  #contains(container: TemplateValue, value: TemplateValue): boolean {
    if (typeof container === 'object') return Object.hasOwn(container, this.#show(value));
    return this.#show(container).includes(this.#show(value));
  }

  #filtered(): TemplateValue {
    let value = this.#primary();
    while (this.#take('|')) {
      const name = this.#tokens.shift() ?? '';
      const argument = this.#take(':') ? this.#primary() : undefined;
      value = filter(name, value, { argument, effort: this.#effort });
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

function filter(
  name: string,
  value: TemplateValue,
  { argument, effort }: { readonly argument: TemplateValue; readonly effort: Effort },
): TemplateValue {
  switch (name) {
    case 'safe':
      return value;
    case 'default':
      return truthy(value) ? value : argument;
    case 'lower':
      return effort.show(value).toLowerCase();
    case 'upper':
      return effort.show(value).toUpperCase();
    case 'trim':
      return effort.show(value).trim();
    case 'date':
      return formatGoDate(new Date(effort.show(value)), effort.show(argument));
    default:
      throw bad(`filter ${shortened(name)} is not supported`);
  }
}

export function truthy(value: TemplateValue): boolean {
  return value !== undefined && value !== '' && value !== false && value !== 0;
}

function textOf(value: TemplateValue): string {
  if (value === undefined || typeof value === 'function') return '';
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

/** Errors are for people to read. */
export function shortened(text: string): string {
  return text.length <= 100 ? text : `${text.slice(0, 100)}…`;
}

export function bad(reason: string): AppError {
  return new AppError('invalid', `Failed to render template: ${reason}`);
}
