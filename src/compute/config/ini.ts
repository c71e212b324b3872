// Reader of oslo.config's ini dialect: sections, `=` or `:`, continuation lines, quotes, repeated keys.

/** Options of one section as written; a key given more than once keeps all values, in order. */
export type RawSection = Readonly<Record<string, readonly string[]>>;

/** Where a value was written: `file:line`, or the name of an environment variable. */
export type Origin = string;

export interface IniValue {
  readonly text: string;
  readonly origin: Origin;
}

/** Something an operator must correct. */
export interface Complaint {
  readonly origin: Origin;
  readonly message: string;
}

export type IniSections = ReadonlyMap<string, ReadonlyMap<string, readonly IniValue[]>>;

export interface IniFile {
  readonly sections: IniSections;
  readonly complaints: readonly Complaint[];
}

/** DEFAULT keeps its case; all other sections are known by their lower-case name. */
export function normalizeSection(name: string): string {
  return name.toUpperCase() === 'DEFAULT' ? 'DEFAULT' : name.toLowerCase();
}

/** Never throws: a line that cannot be read is a complaint, and the rest is read. */
export function parseIni(text: string, file: string): IniFile {
  const reader = new IniReader(file);
  for (const line of text.split(/\r?\n/)) reader.line(line.trimEnd());
  reader.flush();
  return reader;
}

class IniReader implements IniFile {
  readonly sections = new Map<string, Map<string, IniValue[]>>();
  readonly complaints: Complaint[] = [];
  readonly #file: string;
  #lineNumber = 0;
  #section: string | undefined;
  #pending: { readonly key: string; readonly lines: string[]; readonly origin: Origin } | undefined;

  constructor(file: string) {
    this.#file = file;
  }

  line(line: string): void {
    this.#lineNumber += 1;
    if (line === '') return this.flush();
    if (/^[ \t]/.test(line)) return this.#continuation(line.trimStart());
    this.flush();
    if (line.startsWith('#') || line.startsWith(';')) return;
    if (line.startsWith('[')) return this.#header(line);
    this.#assignment(line);
  }

  /** Ends the value that continuation lines could still belong to. */
  flush(): void {
    if (!this.#pending) return;
    const { key, lines, origin } = this.#pending;
    this.#pending = undefined;
    if (this.#section === undefined) {
      this.complaints.push({ origin, message: `option ${key} stands before the first [section]` });
      return;
    }
    const options = this.sections.get(this.#section) ?? new Map<string, IniValue[]>();
    this.sections.set(this.#section, options);
    options.set(key, [...(options.get(key) ?? []), { text: lines.join('\n'), origin }]);
  }

  #continuation(text: string): void {
    if (this.#pending) this.#pending.lines.push(text);
    else this.#complain('an indented line continues an option, but there is none before it');
  }

  #header(line: string): void {
    const name = line.slice(1, -1);
    if (!line.endsWith(']') || name === '') this.#complain(`${line} is not a section: write [name]`);
    else this.#section = normalizeSection(name);
  }

  #assignment(line: string): void {
    const at = line.search(/[:=]/);
    if (at < 0) return this.#complain('no "=" in this line; a comment starts with "#"');
    const key = line.slice(0, at).trim().replaceAll('-', '_');
    if (key === '') return this.#complain('no option name before the "="');
    this.#pending = { key, lines: [unquote(line.slice(at + 1).trim())], origin: this.#here() };
  }

  #complain(message: string): void {
    this.complaints.push({ origin: this.#here(), message });
  }

  #here(): Origin {
    return `${this.#file}:${this.#lineNumber}`;
  }
}

function unquote(value: string): string {
  const quoted = value.length > 1 && /^["']/.test(value) && value.at(0) === value.at(-1);
  return quoted ? value.slice(1, -1) : value;
}
