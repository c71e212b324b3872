// Makes the Fastify application: bodies, validation, trust, errors, and the answers to unknown paths and methods.
import type { IncomingMessage } from 'node:http';
import { Ajv, type ValidateFunction } from 'ajv';
import fastify from 'fastify';
import { onBehalfOf } from '#src/engine/events/requestor.ts';
import type { ServerConfig } from '#src/engine/server/server-config.ts';
import type { Log } from '#src/lib/log.ts';
import type { ApiApp, Caller } from './app.ts';
import { useBodies } from './bodies.ts';
import { useCors } from './cors.ts';
import { ApiError, sendError, useErrorEnvelope } from './envelope.ts';
import { PathTable } from './path-table.ts';

export interface ApiOptions {
  readonly log: Log;
  /** Who is at the other end of a connection. */
  readonly callerOf: (request: IncomingMessage) => Caller;
  readonly projectExists: (name: string) => boolean;
  readonly config: Pick<ServerConfig, 'text' | 'flag'>;
  /** Why nothing but reading is served now; undefined: everything is. */
  readonly closedBecause?: () => string | undefined;
  /** What clients are told of an error of ours; default its message. */
  readonly explain?: (error: unknown) => Promise<string>;
}

/** Paths of names: long ones reach the handler, which knows why they are wrong. */
const MAX_PARAM_LENGTH = 4096;
/** Of the path, before the query: no file system takes one. */
const HAS_NUL = /^[^?]*%00/u;

export function createApi(options: ApiOptions): ApiApp {
  const { log, callerOf, projectExists, config, closedBecause } = options;
  const app: ApiApp = fastify({
    exposeHeadRoutes: false,
    forceCloseConnections: true,
    frameworkErrors: (error, _request, reply) => void sendError(reply, 400, error.message),
    routerOptions: { maxParamLength: MAX_PARAM_LENGTH, querystringParser: parseQuery },
  });
  const paths = new PathTable();
  app.addHook('onRoute', ({ url }) => paths.add(url));
  useValidation(app);
  useBodies(app);
  useErrorEnvelope(app, log, options.explain);
  useCors(app, config);
  app.decorateRequest('projectExists', projectExists);
  useCallers(app, callerOf);
  app.addHook('onRequest', async ({ url }) => {
    if (HAS_NUL.test(url)) throw new ApiError(400, 'Names and paths do not contain NUL');
  });
  app.addHook('onRequest', async (request) => {
    const why = closedBecause?.();
    const { always = false } = request.routeOptions.config;
    if (why !== undefined && !always && request.method !== 'GET') throw new ApiError(503, why);
  });
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?', 1)[0] ?? '';
    return paths.knows(path) ? sendError(reply, 501, 'not implemented') : sendError(reply, 404, 'not found');
  });
  return app;
}

function useCallers(app: ApiApp, callerOf: ApiOptions['callerOf']): void {
  app.decorateRequest('caller');
  app.addHook('onRequest', (request, reply, done) => {
    const caller = callerOf(request.raw);
    request.caller = caller;
    const { untrusted = false, admin = false } = request.routeOptions.config;
    const downgrade =
      request.headers['x-lxd-authenticated'] !== 'true' && request.headers['x-incus-authenticated'] !== 'true';
    const isRefused = caller.trusted ? admin && caller.projects !== undefined : !(untrusted && downgrade);
    if (isRefused) {
      void sendError(reply, 403, 'not authorized');
      return;
    }
    onBehalfOf(caller.requestor, done);
  });
}

/** Bodies are taken as they are (wrong types are refused); what comes in a URL is text and becomes what its schema says. */
function useValidation(app: ApiApp): void {
  const bodies = new Ajv({ strict: false, allErrors: false });
  const urls = new Ajv({ strict: false, coerceTypes: true });
  app.setValidatorCompiler(({ schema, httpPart }): ValidateFunction => {
    const validator = httpPart === 'body' ? bodies : urls;
    return validator.compile(schema as object);
  });
}

/** Node's own parser keeps repeated keys as lists; LXD takes the first. */
function parseQuery(text: string): Record<string, string> {
  const result: Record<string, string> = {};
  for (const [key, value] of new URLSearchParams(text)) if (!Object.hasOwn(result, key)) result[key] = value;
  return result;
}
