// The layer rule of the design: imports point down only, and dangerous imports live in one place.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';

const root = resolve(import.meta.dirname, '../../..');

/** What each layer may import, besides itself. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  config: [],
  'src/lib': [],
  'src/host': ['src/lib'],
  'src/messaging': ['src/lib'],
  'src/client': ['src/lib'],
  'src/openstack': ['src/lib'],
  'src/nova': ['src/messaging', 'src/lib'],
  drivers: ['src/host', 'src/client', 'src/lib'],
  'src/engine': ['drivers', 'src/host', 'src/lib'],
  'src/compute': ['src/nova', 'src/openstack', 'src/messaging', 'drivers', 'src/host', 'src/lib'],
  'src/api': ['src/engine', 'drivers', 'src/host', 'src/lib'],
  'src/cli': ['src/client', 'src/lib'],
};

function sources(folder: string): readonly string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name))
    .filter((name) => statSync(join(root, name)).isFile());
}

const files = ['src', 'drivers'].flatMap(sources);

function layerOf(file: string): string {
  const [top = '', second = ''] = file.split('/');
  return top === 'src' ? `src/${second}` : top;
}

function importsOf(file: string): readonly string[] {
  const text = readFileSync(join(root, file), 'utf8');
  return [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map((match) => match[1] ?? '');
}

/** Path from the repository's root, for our own files; undefined for packages. */
function target(file: string, specifier: string): string | undefined {
  if (specifier.startsWith('#')) return specifier.slice(1);
  return specifier.startsWith('.') ? relative(root, resolve(root, dirname(file), specifier)) : undefined;
}

function offences(isOffence: (file: string, specifier: string) => boolean): readonly string[] {
  return files.flatMap((file) =>
    importsOf(file)
      .filter((specifier) => isOffence(file, specifier))
      .map((specifier) => `${file} imports ${specifier}`),
  );
}

describe('layers', () => {
  it('import downwards only', () => {
    const found = offences((file, specifier) => {
      const imported = target(file, specifier);
      if (imported === undefined) return false;
      const [from, to] = [layerOf(file), layerOf(imported)];
      return from !== to && to !== 'config' && !(ALLOWED[from] ?? []).includes(to);
    });

    expect(found).toEqual([]);
  });

  it('are crossed with # imports, not with relative paths', () => {
    const found = offences((file, specifier) => {
      const imported = target(file, specifier);
      return specifier.startsWith('.') && imported !== undefined && layerOf(imported) !== layerOf(file);
    });

    expect(found).toEqual([]);
  });

  it('keep drivers of one kind apart', () => {
    const found = offences((file, specifier) => {
      const imported = target(file, specifier)?.split('/') ?? [];
      const own = file.split('/');
      const isDriver = own[0] === 'drivers' && own.length > 3 && imported[0] === 'drivers' && imported.length > 3;
      return isDriver && own[1] === imported[1] && own[2] !== imported[2] && imported[2] !== 'common';
    });

    expect(found).toEqual([]);
  });

  it.each([
    ['node:child_process', /^src\/host\//],
    ['koffi', /^src\/host\//],
    ['node:sqlite', /^src\/engine\/db\//],
    ['amqplib', /^src\/messaging\//],
  ])('import %s in one place', (name, place) => {
    expect(offences((file, specifier) => specifier === name && !place.test(file))).toEqual([]);
  });

  it('leave environment, exit and signals to bin', () => {
    // that a child has ended is told by a signal: it concerns whoever starts children, not the program
    const use = /process\.(env|exit|on)\b(?!\('SIGCHLD')/;
    const found = files.filter((file) => use.test(readFileSync(join(root, file), 'utf8')));

    expect(found).toEqual([]);
  });
});
