// All paths that have a route, to tell an unknown path (404) from a method that it does not have (501).

export class PathTable {
  readonly #patterns = new Map<string, RegExp>();

  /** A Fastify pattern: /1.0/images/:fingerprint. */
  add(pattern: string): void {
    if (!this.#patterns.has(pattern)) this.#patterns.set(pattern, pathPattern(pattern));
  }

  knows(path: string): boolean {
    return this.#patterns.values().some((pattern) => pattern.test(path));
  }
}

export function pathPattern(pattern: string): RegExp {
  const source = pattern
    .split('/')
    .map((part) => {
      if (part === '*') return '.*';
      const parameter = /^:(\w+)$/.exec(part);
      return parameter ? `(?<${parameter[1]}>[^/]+)` : part.replaceAll(/[.*+?^${}()|[\]\\]/gu, '\\$&');
    })
    .join('/');
  return new RegExp(`^${source}$`, 'u');
}
