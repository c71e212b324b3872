// POST /1.0/instances/{name}/rebuild
import type { ApiApp } from './app.ts';
import { operation } from './envelope.ts';
import { RebuildBody } from './instance-bodies.ts';
import { type InstanceDeps, instanceOf } from './instance-of.ts';
import { projectOf } from './project.ts';
import { pathParams, ProjectQuery } from './schema.ts';

export function rebuildRoute(app: ApiApp, prefix: string, deps: InstanceDeps): void {
  app.post(
    `/1.0/${prefix}/:name/rebuild`,
    {
      schema: {
        summary: 'Replace the root of an instance',
        params: pathParams('name'),
        body: RebuildBody,
        querystring: ProjectQuery,
      },
      config: { async: true },
    },
    async (request, reply) => {
      const { record } = instanceOf(request, deps);
      const { type = '', ...source } = request.body.source ?? {};
      const { rebuild } = deps.instances;
      return operation(reply, deps.operations, rebuild.start(record, { ...source, type }, projectOf(request)));
    },
  );
}
