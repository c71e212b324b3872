// The OpenAPI document, made from the routes themselves: schemas, and what each route says about its answer.
import type { RouteOptions } from 'fastify';
import type { TSchema } from 'typebox';
import type { ApiApp } from './app.ts';

interface Described {
  readonly method: string;
  readonly url: string;
  readonly summary: string;
  readonly params: TSchema | undefined;
  readonly query: TSchema | undefined;
  readonly body: TSchema | undefined;
  readonly config: NonNullable<RouteOptions['config']>;
}

/** Collects what is registered from now on. */
export function describeRoutes(app: ApiApp): readonly Described[] {
  const routes: Described[] = [];
  app.addHook('onRoute', ({ method, url, schema, config = {} }) => {
    for (const each of [method].flat()) {
      routes.push({
        method: each.toLowerCase(),
        url,
        summary: schema?.summary ?? '',
        params: schema?.params as TSchema | undefined,
        query: schema?.querystring as TSchema | undefined,
        body: schema?.body as TSchema | undefined,
        config,
      });
    }
  });
  return routes;
}

export function openApiDocument(routes: readonly Described[], version: string): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const route of routes.toSorted((a, b) => (a.url === b.url ? order(a, b) : a.url < b.url ? -1 : 1))) {
    const path = route.url.replaceAll(/:(\w+)/gu, '{$1}');
    (paths[path] ??= {})[route.method] = operationOf(route);
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Lightervisor engine',
      description: "LXD's REST API 1.0. Every JSON answer is an envelope; `metadata` is what is described here.",
      version,
      license: { name: 'Apache-2.0' },
    },
    paths,
    components: { schemas: { Sync, Async, Error: Failure } },
  };
}

const order = (a: Described, b: Described) => a.method.localeCompare(b.method);

const COMMON = {
  type: { type: 'string' },
  status: { type: 'string' },
  status_code: { type: 'integer' },
  operation: { type: 'string' },
  error_code: { type: 'integer' },
  error: { type: 'string' },
} as const;
const REQUIRED = [...Object.keys(COMMON), 'metadata'];
const Sync = { type: 'object', required: REQUIRED, properties: { ...COMMON, metadata: {} } };
const Async = { type: 'object', required: REQUIRED, properties: { ...COMMON, metadata: { type: 'object' } } };
const Failure = { type: 'object', required: REQUIRED, properties: { ...COMMON, metadata: { type: 'null' } } };

function operationOf({ summary, params, query, body, config }: Described): object {
  return {
    summary,
    ...(params || query ? { parameters: [...parameters('path', params), ...parameters('query', query)] } : {}),
    ...requestBody(body, config),
    responses: { ...success(config), default: jsonContent('Failure', { $ref: '#/components/schemas/Error' }) },
    ...(config.untrusted === true && { security: [{}] }),
  };
}

interface ObjectSchema {
  readonly properties?: Readonly<Record<string, TSchema>>;
  readonly required?: readonly string[];
}

function parameters(place: 'path' | 'query', schema: TSchema | undefined): readonly object[] {
  const { properties = {}, required = [] } = (schema ?? {}) as ObjectSchema;
  return Object.entries(properties).map(([name, type]) => ({
    name,
    in: place,
    required: place === 'path' || required.includes(name),
    schema: type,
  }));
}

function requestBody(body: TSchema | undefined, { rawBody = 'json' }: Described['config']): object {
  const content = {
    ...(body && { 'application/json': { schema: body } }),
    ...(rawBody !== 'json' && { 'application/octet-stream': {} }),
  };
  return Object.keys(content).length === 0 ? {} : { requestBody: { content } };
}

function success({ async: isAsync, creates, answer }: Described['config']): object {
  if (isAsync === true) return { 202: jsonContent('Operation started', { $ref: '#/components/schemas/Async' }) };
  const schema = answer
    ? { allOf: [{ $ref: '#/components/schemas/Sync' }, { properties: { metadata: answer } }] }
    : { $ref: '#/components/schemas/Sync' };
  return creates === true ? { 201: jsonContent('Created', schema) } : { 200: jsonContent('Success', schema) };
}

function jsonContent(description: string, schema: object): object {
  return { description, content: { 'application/json': { schema } } };
}
