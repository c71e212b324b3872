// Requests that nobody means well, made of the API's own schema: none ends in an internal error, none touches what is outside.
// FUZZ_REQUESTS and FUZZ_SEED ask for more, and for others.
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { InjectOptions } from 'fastify';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { callerFrom } from '#src/api/callers.ts';
import type { ApiApp } from '#src/api/app.ts';
import { ApiError } from '#src/api/envelope.ts';
import { createApi } from '#src/api/create-api.ts';
import { instanceRoutes } from '#src/api/instances.ts';
import { registerRoutes } from '#src/api/register-routes.ts';
import { Upgrades } from '#src/api/upgrades.ts';
import { silentLog } from '#src/lib/log.ts';
import { type InstancesUnderTest, startInstances } from '#test/unit/instances/engine-support.ts';

const REQUESTS = Number(process.env['FUZZ_REQUESTS'] ?? 2000);
const SEED = Number(process.env['FUZZ_SEED'] ?? 20_261_126);

interface Schema {
  readonly type?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: Schema | boolean;
  readonly items?: Schema;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly Schema[];
}

interface Call {
  readonly parameters?: readonly { readonly name: string; readonly in: string; readonly schema: Schema }[];
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema?: Schema }>> };
}

/** Ends the daemon, or sleeps by design. */
const LEFT_OUT = new Set(['/internal/shutdown', '/1.0/operations/{id}/wait', '/1.0/events']);
/** Mistakes of people, escapes, and what parsers stumble over. */
const TEXTS = [
  '',
  '.',
  '..',
  '../../../../etc/lighter-hostile',
  '/../../etc/lighter-hostile',
  '%2e%2e%2flighter-hostile',
  'a/b',
  'c1',
  'c1/snap0',
  'default',
  'memory',
  'x'.repeat(300),
  'x'.repeat(70_000),
  'é\u202E\u0000\n',
  'a\r\nSet-Cookie: b',
  '${jndi:ldap://x}',
  '$(touch /tmp/lighter-hostile)',
  '`touch /tmp/lighter-hostile`',
  "'; DROP TABLE instances; --",
  '-rf',
  '--help',
  '__proto__',
  'constructor',
  '-1',
  '0',
  '1e999',
  '99999999999999999999',
  'NaN',
  'true',
  '1GiB',
  '[1:2:3::]:99999',
  'disk',
  'nic',
  'root',
  '*',
  '((((((((((a+)+)+)+)+)+)+)+)+)+)$',
  'name eq ((',
];
/** LXD's words and status: for a console that has never printed anything, and for pools. */
const MEANT = /console\.log: no such file|Unknown driver/u;
const OTHERS = [null, true, 0, -1, 1.5, 1e300, 2 ** 53, [], {}, [[[[]]]], { __proto__x: 1 }, ['a', null, 1]];

/** The same numbers for the same seed. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d_2b_79_f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

class Maker {
  readonly #random: () => number;

  constructor(seed: number) {
    this.#random = randomOf(seed);
  }

  chance(part: number): boolean {
    return this.#random() < part;
  }

  one<T>(from: readonly T[]): T {
    return from[Math.floor(this.#random() * from.length)] as T;
  }

  text(): string {
    return this.one(TEXTS);
  }

  /** Mostly of the schema's type, so that it comes past the border; sometimes of any. */
  value(schema: Schema, depth = 0): unknown {
    if (this.chance(0.08)) return this.one(OTHERS);
    const choice = schema.anyOf === undefined ? schema : this.one(schema.anyOf);
    if (choice.enum !== undefined && this.chance(0.9)) return this.one(choice.enum);
    if (choice.type === 'boolean') return this.chance(0.5);
    if (choice.type === 'integer' || choice.type === 'number') return this.one([0, 1, -1, 30, 2 ** 31, 2 ** 53]);
    if (choice.type === 'array') return Array.from({ length: 2 }, () => this.value(choice.items ?? {}, depth + 1));
    if (choice.type === 'object' || choice.properties !== undefined) return this.#object(choice, depth);
    return this.text();
  }

  #object({ properties = {}, additionalProperties }: Schema, depth: number): object {
    if (depth > 4) return {};
    const known = Object.entries(properties).filter(() => this.chance(0.8));
    const made = known.map(([key, schema]) => [key, this.value(schema, depth + 1)]);
    const free = typeof additionalProperties === 'object' ? additionalProperties : {};
    const more = this.chance(0.3) ? [[this.text().slice(0, 200), this.value(free, depth + 1)]] : [];
    return Object.fromEntries([...made, ...more]) as object;
  }
}

interface Attempt {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly payload?: string;
}

function attemptOf(make: Maker, path: string, method: string, call: Call): Attempt {
  const parameters = call.parameters ?? [];
  const named = path.replaceAll(/\{(\w+)\}/g, () => encodeURIComponent(make.text().slice(0, 500)));
  const query = parameters
    .filter((parameter) => parameter.in === 'query' && make.chance(0.4))
    .map(({ name, schema }) => `${name}=${encodeURIComponent(String(make.value(schema)).slice(0, 2000))}`);
  const schema = call.requestBody?.content['application/json']?.schema;
  const body = schema === undefined ? make.text() : JSON.stringify(make.value(schema));
  const cut = make.chance(0.05) ? body.slice(0, body.length / 2) : body;
  return {
    method: method.toUpperCase(),
    url: query.length === 0 ? named : `${named}?${query.join('&')}`,
    headers: {
      ...(make.chance(0.2) && {
        'content-type': make.one(['text/plain', 'multipart/form-data', 'x', 'application/json']),
      }),
      ...(make.chance(0.2) && { 'if-match': make.one(['"x"', '*', 'W/"', '0']) }),
      ...(make.chance(0.2) && { 'x-lxd-type': make.one(['file', 'symlink', 'directory', '..']) }),
      ...(make.chance(0.2) && { 'x-lxd-mode': make.one(['0777', '99999999', '-1', 'rwx']) }),
      ...(make.chance(0.1) && { range: make.one(['bytes=0-', 'bytes=-1', 'bytes=9-1', 'lines=1']) }),
    },
    ...(call.requestBody !== undefined && { payload: cut }),
  };
}

describe('hostile requests', () => {
  let test: InstancesUnderTest;
  let app: ApiApp;
  let upgrades: Upgrades;
  const failures: string[] = [];
  let logged = 0;

  beforeAll(async () => {
    test = await startInstances();
    const { engine } = test;
    const { projects } = engine.context.database;
    const callerOf = callerFrom(engine.context.database);
    const log = {
      ...silentLog,
      error(message: string, meta?: { readonly error?: unknown }) {
        logged += 1;
        // LXD's own status for some mistakes of clients is 500, too: those are meant
        if (!(meta?.error instanceof ApiError) && !MEANT.test(String(meta?.error))) failures.push(told(message, meta));
      },
    };
    app = createApi({
      log,
      callerOf,
      projectExists: (name) => projects.find(name) !== undefined,
      config: engine.config,
    });
    upgrades = new Upgrades({ callerOf, log });
    registerRoutes(app, { engine, upgrades, instanceRoutes, shutdown: async () => undefined });
    await app.ready();
    await test.create('c1');
  });
  afterAll(async () => {
    upgrades.close();
    await app.close();
    await test[Symbol.asyncDispose]();
  });

  it(`are answered without an internal error: ${REQUESTS} of seed ${SEED}`, { timeout: 600_000 }, async () => {
    const document = JSON.parse(await readFile('docs/openapi.json', 'utf8')) as {
      readonly paths: Readonly<Record<string, Readonly<Record<string, Call>>>>;
    };
    const calls = Object.entries(document.paths)
      .filter(([path]) => !LEFT_OUT.has(path))
      .flatMap(([path, methods]) => Object.entries(methods).map(([method, call]) => ({ path, method, call })));
    const make = new Maker(SEED);
    const statuses = new Map<number, number>();
    for (let count = 0; count < REQUESTS; count += 1) {
      const { path, method, call } = make.one(calls);
      const attempt = attemptOf(make, path, method, call);
      const before = logged;
      const { statusCode } = await app.inject(attempt as InjectOptions);
      statuses.set(statusCode, (statuses.get(statusCode) ?? 0) + 1);
      if (statusCode === 500 && logged === before) failures.push(`no cause: ${JSON.stringify(attempt).slice(0, 600)}`);
    }

    expect(failures).toEqual([]);
    // it would prove little if nothing came past the border
    expect(statuses.get(200) ?? 0).toBeGreaterThan(REQUESTS / 50);
    expect((await app.inject('/1.0')).statusCode).toBe(200);
    for (const folder of ['/etc', '/tmp', '/', join(test.root, '..')]) {
      expect(await readdir(folder)).not.toContain('lighter-hostile');
    }
  });
});

function told(message: string, meta: object = {}): string {
  const { error, ...rest } = meta as { readonly error?: unknown };
  return `${message} ${JSON.stringify(rest)} ${error instanceof Error ? (error.stack ?? '') : String(error)}`;
}
