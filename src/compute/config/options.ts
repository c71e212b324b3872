// Options resolved: files merged, environment over files, $references substituted, converted, checked by the schema.
import { Ajv, type ErrorObject } from 'ajv';
import { messageOf } from '#src/lib/errors.ts';
import { convert } from './convert.ts';
import type { Complaint, IniFile, IniValue, Origin, RawSection } from './ini.ts';
import { computeOptions, computeSchema, type OptionSpec, type OptionValue } from './schema.ts';

export interface OptionSources {
  /** In the order given: later wins. */
  readonly files: readonly IniFile[];
  /** OS_<GROUP>__<OPTION> wins over files. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Defaults of [DEFAULT] that depend on the machine: host, my_ip, tempdir. */
  readonly machineDefaults: Readonly<Record<string, string>>;
}

const REFERENCE = /\$(?:(?<escaped>\$)|(?<plain>[_a-z][._a-z0-9]*)|\{(?<braced>[_a-z][._a-z0-9]*)\})/gi;
const DEEPEST_REFERENCE = 10;

/** Every option of the schema has a value; `complaints` says which of them are not to be used. */
export class Options {
  readonly complaints: Complaint[];
  readonly #sources: OptionSources;
  readonly #written = new Map<string, Map<string, readonly IniValue[]>>();
  readonly #values = new Map<string, Map<string, OptionValue>>();

  constructor(sources: OptionSources) {
    this.#sources = sources;
    this.complaints = sources.files.flatMap((file) => file.complaints);
    for (const file of sources.files) this.#merge(file);
    this.#refuseUnknown();
    this.#resolveAll();
    this.#validate();
  }

  get(section: string, name: string): OptionValue {
    const value = this.#values.get(section)?.get(name);
    if (value === undefined) throw new Error(`config/nova-compute.schema.json has no option [${section}] ${name}`);
    return value;
  }

  /** Whether the schema has the option. */
  has(section: string, name: string): boolean {
    return this.#values.get(section)?.has(name) ?? false;
  }

  /** Where the value of an option comes from. */
  originOf(section: string, name: string): Origin {
    const { aliases } = computeOptions.get(section)?.options.get(name) ?? {};
    return this.#find(section, name, aliases)?.at(-1)?.origin ?? `[${section}] ${name}`;
  }

  /** Adds to the complaints, with the place of the option. */
  complain(section: string, name: string, message: string): void {
    this.complaints.push({ origin: this.originOf(section, name), message });
  }

  /** A whole section as written, references substituted; for sections that another layer knows. */
  raw(section: string): RawSection {
    const written = this.#written.get(section) ?? new Map<string, readonly IniValue[]>();
    const names = new Set([...written.keys(), ...this.#environmentNames(section)]);
    const entries = [...names].map(
      (name) => [name, this.#texts(section, name, this.#find(section, name) ?? [])] as const,
    );
    return Object.fromEntries(entries);
  }

  #merge(file: IniFile): void {
    for (const [section, options] of file.sections) {
      const merged = this.#written.get(section) ?? new Map<string, readonly IniValue[]>();
      this.#written.set(section, merged);
      for (const [name, values] of options) merged.set(name, [...(merged.get(name) ?? []), ...values]);
    }
  }

  #refuseUnknown(): void {
    for (const [section, { closed, options }] of computeOptions) {
      if (!closed) continue;
      const known = [...options.keys()];
      for (const [name, values] of this.#written.get(section) ?? []) {
        if (options.has(name)) continue;
        const message = `[${section}] has no option ${name}; it has ${known.join(', ')}`;
        this.complaints.push({ origin: values.at(-1)?.origin ?? section, message });
      }
    }
  }

  #resolveAll(): void {
    for (const [section, { options }] of computeOptions) {
      const values = new Map<string, OptionValue>();
      this.#values.set(section, values);
      for (const [name, spec] of options) values.set(name, this.#resolve(section, name, spec));
    }
  }

  #resolve(section: string, name: string, spec: OptionSpec): OptionValue {
    const found = this.#find(section, name, spec.aliases);
    if (!found) return this.#default(section, name, spec);
    const complaintsBefore = this.complaints.length;
    const texts = this.#texts(section, name, found);
    if (this.complaints.length > complaintsBefore) return this.#default(section, name, spec);
    try {
      return convert(texts, spec);
    } catch (error) {
      const shown = spec.secret ? '' : `, not "${texts.at(-1)}"`;
      const message = `[${section}] ${name}: ${messageOf(error)}${shown}`;
      this.complaints.push({ origin: found.at(-1)?.origin ?? name, message });
      return this.#default(section, name, spec);
    }
  }

  #default(section: string, name: string, spec: OptionSpec): OptionValue {
    const machine = section === 'DEFAULT' ? this.#sources.machineDefaults[name] : undefined;
    if (machine !== undefined) return machine;
    if (typeof spec.default !== 'string') return spec.default;
    return this.#texts(section, name, [{ text: spec.default, origin: 'default' }])[0] ?? spec.default;
  }

  /** Environment before files; an older name only when the current one is not given. */
  #find(section: string, name: string, aliases: readonly string[] = []): readonly IniValue[] | undefined {
    for (const candidate of [name, ...aliases]) {
      const variable = `OS_${section.toUpperCase()}__${candidate.toUpperCase()}`;
      const text = this.#sources.environment[variable];
      if (text !== undefined) return [{ text, origin: variable }];
      const written = this.#written.get(section)?.get(candidate.replaceAll('-', '_'));
      if (written) return written;
    }
    return undefined;
  }

  #environmentNames(section: string): string[] {
    const prefix = `OS_${section.toUpperCase()}__`;
    return Object.keys(this.#sources.environment)
      .filter((variable) => variable.startsWith(prefix))
      .map((variable) => variable.slice(prefix.length).toLowerCase());
  }

  #texts(section: string, name: string, values: readonly IniValue[]): string[] {
    return values.map((value) => {
      try {
        return this.#substitute(value, section, 0);
      } catch (error) {
        this.complaints.push({ origin: value.origin, message: `[${section}] ${name}: ${messageOf(error)}` });
        return value.text;
      }
    });
  }

  /** `$name`, `${name}`, `$group.name`; `$$` and `\$` are a dollar sign. */
  #substitute({ text, origin }: IniValue, section: string, depth: number): string {
    if (depth > DEEPEST_REFERENCE) throw new Error(`$references go round in a circle (${origin})`);
    const escaped = text.replaceAll('\\$', () => '$$');
    return escaped.replace(REFERENCE, (...match: unknown[]) => {
      const groups = match.at(-1) as Record<string, string | undefined>;
      if (groups['escaped']) return '$';
      return this.#referenced(groups['plain'] ?? groups['braced'] ?? '', section, depth);
    });
  }

  #referenced(reference: string, section: string, depth: number): string {
    const dot = reference.indexOf('.');
    const places: readonly (readonly [string, string])[] =
      dot < 0
        ? [
            [section, reference],
            ['DEFAULT', reference],
          ]
        : [[reference.slice(0, dot), reference.slice(dot + 1)]];
    for (const [group, name] of places) {
      const text = this.#textOf(group, name, depth);
      if (text !== undefined) return text;
    }
    throw new Error(`$${reference} names no option that is set; write $$ for a dollar sign`);
  }

  #textOf(section: string, name: string, depth: number): string | undefined {
    const spec = computeOptions.get(section)?.options.get(name);
    const written = this.#find(section, name, spec?.aliases)?.at(-1);
    if (written) return this.#substitute(written, section, depth + 1);
    const machine = section === 'DEFAULT' ? this.#sources.machineDefaults[name] : undefined;
    if (machine !== undefined) return machine;
    if (!spec) return undefined;
    return spec.default === null
      ? ''
      : this.#substitute({ text: String(spec.default), origin: 'default' }, section, depth + 1);
  }

  #validate(): void {
    const validate = new Ajv({ allErrors: true, strict: false }).compile(computeSchema);
    const values = Object.fromEntries([...this.#values].map(([name, options]) => [name, Object.fromEntries(options)]));
    if (validate(values)) return;
    for (const error of validate.errors ?? []) this.complaints.push(this.#complaintOf(error));
  }

  #complaintOf({ instancePath, keyword, message, params }: ErrorObject): Complaint {
    const [, section = '', name = ''] = instancePath.split('/');
    const spec = computeOptions.get(section)?.options.get(name);
    const allowed = keyword === 'enum' ? `: ${(params['allowedValues'] as unknown[]).filter(Boolean).join(', ')}` : '';
    const shown = spec?.secret ? '' : `, not ${JSON.stringify(this.get(section, name))}`;
    return {
      origin: this.originOf(section, name),
      message: `[${section}] ${name} ${message ?? 'is not valid'}${allowed}${shown}`,
    };
  }
}
