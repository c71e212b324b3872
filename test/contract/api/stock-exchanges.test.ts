// Every answer of a stock LXD 5.0.2, recorded request after request, against ours: status, kind, error text, shape.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestEngine, type TestEngine } from '../../fakes/test-engine.ts';

interface Exchange {
  readonly request: {
    readonly method: 'GET' | 'PUT' | 'POST' | 'PATCH' | 'DELETE';
    readonly path: string;
    readonly body?: unknown;
    readonly rawBase64?: string;
    readonly headers?: Readonly<Record<string, string>>;
  };
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly answer: unknown;
}

/** Where we differ on purpose: request → why. Their status is checked all the same when it is given. */
const OURS: Readonly<Record<string, { readonly why: string; readonly status?: number }>> = {
  'POST /1.0/profiles {"name":5}': { why: 'says what is wrong in its own words', status: 400 },
  'POST /1.0/profiles (raw)': { why: 'says what is wrong in its own words', status: 400 },
  'POST /1.0/profiles/nope {"name":"p4"}': {
    why: 'a profile that is not there is 404, not a complaint about rows',
    status: 404,
  },
  'POST /1.0/storage-pools {"name":"p2","driver":"dir","config":{"nope":"1"}}': {
    why: 'as on PUT: it is the request that is bad',
    status: 400,
  },
  'PATCH /1.0/storage-pools/p2 {"config":{"user.a":"b"}}': {
    why: 'the description stays when PATCH does not name it',
    status: 200,
  },
  'PATCH /1.0/images/aliases/deb {"description":"f"}': { why: 'LXD deadlocks here: it works', status: 200 },
  'GET /1.0/images?filter=properties.os%20foo%20bar': { why: 'an unknown operator is refused, not false', status: 500 },
  'POST /1.0/certificates {"type":"nope","certificate":"xx"}': { why: 'same', status: 400 },
  'POST /1.0/certificates {"type":"client","certificate":"xx"}': {
    why: 'says what is wrong in its own words',
    status: 400,
  },
  'PATCH /1.0 {"config":{"core.shutdown_timeout":7,"images.auto_update_cached":true,"user.a":"b"}}': {
    why: 'LXD refuses numbers',
    status: 200,
  },
  'PATCH /1.0 {"config":{"images.compression_algorithm":"foo"}}': {
    why: 'says what is wrong in its own words',
    status: 400,
  },
  'PATCH /1.0 {"config":{"images.remote_cache_expiry":"x"}}': { why: 'same', status: 400 },
  'GET /1.0/events': { why: 'an envelope, not plain text', status: 400 },
};

/** Bodies whose values depend on the machine or the moment: only their keys are compared. */
const BY_KEYS =
  /^\/1\.0(?:$|\/resources|\/storage-pools\/[^/]+\/resources|\/networks\/lo\/state|\/operations|\/images\/[0-9a-f]+\/(?:secret|refresh))/u;
const NOT_OFFERED = [/\/refresh$/u, /7477df32-8592-485d-a010-7ad08487ca6b/u];
/** Theirs → ours, where one difference changes what is read later. */
const FOLLOWING: readonly (readonly [string, string])[] = [
  ['"used_by":null', '"used_by":[]'],
  ['"description":"","name":"p2"', '"description":"second","name":"p2"'],
  ['"description":"e","target"', '"description":"f","target"'],
];

const exchanges = JSON.parse(
  await readFile(join(import.meta.dirname, '../../fixtures/lxd/exchanges.json'), 'utf8'),
) as readonly Exchange[];

function nameOf({ request: { method, path, body, rawBase64, headers } }: Exchange): string {
  const extra = headers?.['If-Match'] === undefined ? '' : ' If-Match';
  return `${method} ${path}${body === undefined ? '' : ` ${JSON.stringify(body)}`}${rawBase64 === undefined ? '' : ' (raw)'}${extra}`;
}

/** Keys of objects, recursively; lists by their first member. */
function shapeOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.length === 0 ? [] : [shapeOf(value[0])];
  if (typeof value !== 'object' || value === null) return typeof value;
  return Object.fromEntries(
    Object.keys(value)
      .toSorted()
      .map((key) => [key, true]),
  );
}

describe('the API beside a stock LXD', () => {
  let test: TestEngine;
  /** Theirs → ours: operation ids, so that later requests go to the right one. */
  const names = new Map<string, string>();
  const etags = new Map<string, string>();

  beforeAll(async () => {
    test = await startTestEngine();
  });
  afterAll(() => test[Symbol.asyncDispose]());

  /** Their names in what they asked become ours. */
  const ours = (text: string) => [...names].reduce((result, [theirs, own]) => result.replaceAll(theirs, own), text);
  /** What differs from run to run becomes a mark. */
  const normal = (value: unknown): unknown =>
    JSON.parse(
      FOLLOWING.reduce((text, [theirs, own]) => text.replaceAll(theirs, own), ours(JSON.stringify(value) ?? 'null'))
        .replaceAll(test.root, '$LXD_DIR')
        .replaceAll(/"(\w+_at|expiresAt)":"2026[^"]*"/gu, '"$1":"NOW"')
        .replaceAll(/\d{2}:\d{2}:\d{2}(?:\.\d+)?Z/gu, 'TIME')
        .replaceAll(/,"quotas":(?:true|false)/gu, '') // an extension of ours
        .replaceAll(/\b[0-9a-f]{64} vs/gu, 'X vs')
        .replaceAll(/ vs [0-9a-f]{64}/gu, ' vs X'),
    );

  it.each(exchanges.map((exchange) => [nameOf(exchange), exchange] as const))('%s', async (name, exchange) => {
    const { request, status, headers, answer } = exchange;
    if (NOT_OFFERED.some((pattern) => pattern.test(request.path))) return;
    const ifMatch = request.headers?.['If-Match'];
    const payload = request.rawBase64 === undefined ? undefined : Buffer.from(request.rawBase64, 'base64');
    const reply = await test.app.inject({
      method: request.method,
      url: ours(request.path),
      headers: {
        ...request.headers,
        ...(request.body !== undefined && { 'content-type': 'application/json' }),
        ...(ifMatch !== undefined && { 'if-match': etags.get(ifMatch) ?? ifMatch }),
      },
      ...(request.body !== undefined && { payload: JSON.stringify(request.body) }),
      ...(payload && { payload }),
    });
    if (headers['etag'] !== undefined) etags.set(headers['etag'], String(reply.headers['etag']));
    const difference = OURS[name];
    if (difference) {
      expect({ why: difference.why, status: reply.statusCode }).toEqual({
        why: difference.why,
        status: difference.status,
      });
      return;
    }
    expect({ status: reply.statusCode, body: reply.statusCode === status ? '' : reply.body }).toEqual({
      status,
      body: '',
    });
    if (typeof answer === 'string') return;
    const own = reply.json<Record<string, unknown>>();
    const theirs = answer as Record<string, unknown>;
    expect(Object.keys(own)).toEqual(Object.keys(theirs));
    if (typeof theirs['operation'] === 'string' && theirs['operation'] !== '') {
      names.set(theirs['operation'], String(own['operation']));
      expect(reply.headers['location']).toBe(own['operation']);
    }
    expect(normal(own['error'])).toEqual(normal(theirs['error']));
    if ('etag' in headers) expect(reply.headers).toHaveProperty('etag');
    if (headers['location'] !== undefined) expect(reply.headers['location']).toBe(ours(headers['location']));
    const isSecret = theirs['type'] === 'async';
    const path = request.path.split('?', 1)[0] ?? '';
    if (isSecret || BY_KEYS.test(path)) expect(shapeOf(own['metadata'])).toEqual(shapeOf(theirs['metadata']));
    else if (!['/1.0/networks', '/1.0/warnings'].includes(path))
      expect(normal(own['metadata'])).toEqual(normal(theirs['metadata']));
    if (/\/wait/u.test(path)) {
      const [mine, other] = [own['metadata'], theirs['metadata']] as Record<string, unknown>[];
      expect({ status: mine?.['status'], err: mine?.['err'] }).toEqual({
        status: other?.['status'],
        err: other?.['err'],
      });
    }
  });
});
