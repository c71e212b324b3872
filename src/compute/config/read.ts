// Typed access to resolved options; what the composition of the configuration is written with.
import type { Options } from './options.ts';

/** One section; each method fails when the schema has no such option of that type (a mistake of ours, found by tests). */
export class SectionReader {
  readonly name: string;
  readonly #options: Options;

  constructor(options: Options, name: string) {
    this.#options = options;
    this.name = name;
  }

  string(option: string): string {
    return this.#typed(option, 'string') as string;
  }

  optionalString(option: string): string | undefined {
    const value = this.#options.get(this.name, option);
    return value === null || value === '' ? undefined : this.string(option);
  }

  number(option: string): number {
    return this.#typed(option, 'number') as number;
  }

  optionalNumber(option: string): number | undefined {
    return this.#options.get(this.name, option) === null ? undefined : this.number(option);
  }

  /** An option in seconds, in milliseconds. */
  ms(option: string): number {
    return this.number(option) * 1000;
  }

  boolean(option: string): boolean {
    return this.#typed(option, 'boolean') as boolean;
  }

  strings(option: string): readonly string[] {
    return this.#list(option).map(String);
  }

  numbers(option: string): readonly number[] {
    return this.#list(option).map(Number);
  }

  complain(option: string, message: string): void {
    this.#options.complain(this.name, option, `[${this.name}] ${option}: ${message}`);
  }

  #list(option: string): readonly (string | number)[] {
    const value = this.#options.get(this.name, option);
    if (!Array.isArray(value)) throw new Error(`[${this.name}] ${option} is not a list`);
    return value as readonly (string | number)[];
  }

  #typed(option: string, type: 'string' | 'number' | 'boolean'): unknown {
    const value = this.#options.get(this.name, option);
    if (typeof value !== type) throw new Error(`[${this.name}] ${option} is a ${typeof value}, not a ${type}`);
    return value;
  }
}
