// /proc, /sys and what else says what a host is made of: small files of the kernel's memory, read at once.
import { existsSync, readdirSync, realpathSync } from 'node:fs';
import { basename, join } from 'node:path';
import { readKernelFile } from '#src/host/kernel-files.ts';

const byNumber = new Intl.Collator('en', { numeric: true }).compare;

export class SysTree {
  readonly #root: string;

  /** `root`: where the host's root directory is, for tests. */
  constructor(root = '/') {
    this.#root = root;
  }

  /** Without white space around it; empty when it is not there. */
  text(path: string): string {
    return readKernelFile(join(this.#root, path))?.trim() ?? '';
  }

  /** Decimal, or hexadecimal with 0x; undefined when it is no number, or not there. */
  number(path: string): number | undefined {
    const text = this.text(path);
    return /^(-?\d+|0x[\da-f]+)\b/i.test(text) ? Number.parseInt(text) : undefined;
  }

  /** Names in a directory, numbers in them in order; empty when it is not there. */
  list(path: string): readonly string[] {
    try {
      return readdirSync(join(this.#root, path)).toSorted(byNumber);
    } catch {
      return [];
    }
  }

  has(path: string): boolean {
    return existsSync(join(this.#root, path));
  }

  /** The path with all links followed; undefined when it is not there. */
  real(path: string): string | undefined {
    try {
      return realpathSync.native(join(this.#root, path));
    } catch {
      return undefined;
    }
  }

  /** The last name of what a link leads to; empty when it is not there. */
  target(path: string): string {
    const real = this.real(path);
    return real === undefined ? '' : basename(real);
  }
}

/** An object without the members that say nothing: what LXD leaves out. */
export function filled<T extends object>(members: T): Partial<T> {
  const kept = Object.entries(members).filter(([, value]) => value !== '' && value !== undefined && value !== 0);
  return Object.fromEntries(kept) as Partial<T>;
}
