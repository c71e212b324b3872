// /1.0/warnings
/* oxlint-disable max-lines-per-function -- a list of routes, each of them short */
import type { WarningRecord } from '#src/engine/db/records.ts';
import type { Engine } from '#src/engine/engine.ts';
import type { ApiApp } from './app.ts';
import { ApiError, checkIfMatch, sync, syncWithEtag } from './envelope.ts';
import { parseFilter } from './filter.ts';
import { ListQuery, partial, pathParams } from './schema.ts';
import { Type } from './type.ts';

const Params = pathParams('uuid');
const Put = partial({ status: Type.String({ description: 'new, acknowledged' }) });
const Warning = Type.Object({
  uuid: Type.String(),
  location: Type.String(),
  project: Type.String(),
  type: Type.String(),
  count: Type.Integer(),
  first_seen_at: Type.String(),
  last_seen_at: Type.String(),
  last_message: Type.String(),
  severity: Type.String(),
  status: Type.String(),
  entity_url: Type.String(),
});

const view = (warning: WarningRecord) => ({
  uuid: warning.uuid,
  location: 'none',
  project: warning.project,
  type: warning.type,
  count: warning.count,
  first_seen_at: warning.firstSeenAt,
  last_seen_at: warning.lastSeenAt,
  last_message: warning.message,
  severity: warning.severity,
  status: warning.status,
  entity_url: warning.entityUrl,
});
const urlOf = ({ uuid }: WarningRecord) => `/1.0/warnings/${uuid}`;

export function registerWarningRoutes(app: ApiApp, { context }: Pick<Engine, 'context'>): void {
  const { warnings } = context.database;

  app.get(
    '/1.0/warnings',
    {
      schema: { summary: 'List warnings', querystring: ListQuery },
      config: { answer: Type.Array(Warning), admin: true },
    },
    async ({ query: { recursion = 0, filter, project } }) => {
      const list = warnings.list().filter((warning) => project === undefined || warning.project === project);
      const passes = parseFilter(filter);
      const passed = list
        .map((warning) => ({ url: urlOf(warning), shown: view(warning) }))
        .filter(({ shown }) => passes(shown));
      return sync(passed.map(({ url, shown }) => (recursion > 0 ? shown : url)));
    },
  );

  app.get(
    '/1.0/warnings/:uuid',
    { schema: { summary: 'Get a warning', params: Params }, config: { answer: Warning, admin: true } },
    async ({ params }, reply) => {
      const warning = warnings.get(params.uuid);
      return syncWithEtag(reply, view(warning), [warning.status]);
    },
  );

  for (const method of ['PUT', 'PATCH'] as const) {
    app.route({
      method,
      url: '/1.0/warnings/:uuid',
      schema: { summary: 'Acknowledge a warning', params: Params, body: Put },
      config: { admin: true },
      handler: async (request) => {
        const warning = warnings.get(request.params.uuid);
        checkIfMatch(request, [warning.status]);
        const { status = '' } = request.body;
        if (status !== 'new' && status !== 'acknowledged') {
          throw new ApiError(403, 'Status may only be set to "acknowledge" or "new"');
        }
        warnings.setStatus(warning.uuid, status);
        const action = status === 'new' ? 'warning-reset' : 'warning-acknowledged';
        context.events.lifecycle({ action, source: urlOf(warning) });
        return sync();
      },
    });
  }

  app.delete(
    '/1.0/warnings/:uuid',
    { schema: { summary: 'Delete a warning', params: Params }, config: { admin: true } },
    async ({ params }) => {
      const warning = warnings.get(params.uuid);
      warnings.delete(warning.uuid);
      context.events.lifecycle({ action: 'warning-deleted', source: urlOf(warning) });
      return sync();
    },
  );
}
