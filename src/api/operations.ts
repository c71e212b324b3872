// /1.0/operations
/* oxlint-disable max-lines-per-function -- a list of routes, each of them short */
import type { Engine } from '#src/engine/engine.ts';
import type { OperationView } from '#src/engine/operations/operations.ts';
import { AppError } from '#src/lib/errors.ts';
import type { ApiApp } from './app.ts';
import { sync, translating } from './envelope.ts';
import { projectOf } from './project.ts';
import { pathParams } from './schema.ts';
import { Type } from './type.ts';

const Operation = Type.Object({
  id: Type.String(),
  class: Type.String(),
  description: Type.String(),
  created_at: Type.String(),
  updated_at: Type.String(),
  status: Type.String(),
  status_code: Type.Integer(),
  resources: Type.Record(Type.String(), Type.Array(Type.String())),
  metadata: Type.Unknown(),
  may_cancel: Type.Boolean(),
  err: Type.String(),
  location: Type.String(),
});
const Params = pathParams('id');
const List = Type.Object({
  recursion: Type.Optional(Type.Integer()),
  project: Type.Optional(Type.String()),
  'all-projects': Type.Optional(Type.String()),
});
const Wait = Type.Object({
  timeout: Type.Optional(Type.Integer({ description: 'Seconds; -1 or absent: until it ends' })),
  secret: Type.Optional(Type.String()),
});
const Secret = Type.Object({ secret: Type.Optional(Type.String()) });

/** setTimeout's limit; about 24 days. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export function registerOperationRoutes(app: ApiApp, { operations }: Pick<Engine, 'operations'>): void {
  app.get(
    '/1.0/operations',
    {
      schema: { summary: 'List operations by status', querystring: List },
      config: { answer: Type.Record(Type.String(), Type.Array(Operation)), always: true },
    },
    async (request) => {
      const all = request.query['all-projects'] === 'true';
      const list = operations.list(all ? undefined : projectOf(request));
      const show = (view: OperationView) => ((request.query.recursion ?? 0) > 0 ? view : `/1.0/operations/${view.id}`);
      const groups = Map.groupBy(list, ({ status }) => status.toLowerCase());
      return sync(Object.fromEntries([...groups].map(([status, views]) => [status, views.map(show)])));
    },
  );

  app.get(
    '/1.0/operations/:id',
    { schema: { summary: 'Get an operation', params: Params }, config: { answer: Operation, always: true } },
    async ({ params }) => sync(operations.get(params.id)),
  );

  app.delete(
    '/1.0/operations/:id',
    { schema: { summary: 'Cancel an operation', params: Params }, config: { always: true } },
    async ({ params }) => {
      operations.cancel(params.id);
      return sync();
    },
  );

  app.get(
    '/1.0/operations/:id/wait',
    {
      schema: { summary: 'Wait for the end of an operation', params: Params, querystring: Wait },
      config: { answer: Operation, untrusted: true, always: true },
    },
    async (request, reply) => {
      const { params, query, caller } = request;
      operations.get(params.id);
      if (!caller.trusted && !operations.hasSecret(params.id, query.secret ?? '')) {
        throw new AppError('forbidden', 'not authorized');
      }
      const gone = new AbortController();
      reply.raw.once('close', () => gone.abort());
      const { timeout = -1 } = query;
      const limit = timeout < 0 ? [] : [AbortSignal.timeout(Math.min(timeout * 1000, MAX_TIMER_MS))];
      return sync(await operations.wait(params.id, AbortSignal.any([gone.signal, ...limit])));
    },
  );

  app.get(
    '/1.0/operations/:id/websocket',
    {
      schema: { summary: 'Connect to an operation (websocket)', params: Params, querystring: Secret },
      config: { untrusted: true, always: true },
    },
    async ({ params, query }) => {
      await translating({ invalid: { status: 500 } }, () => operations.connect(params.id, query.secret ?? ''));
      throw new AppError('invalid', 'Bad Request: a websocket upgrade is needed');
    },
  );
}
