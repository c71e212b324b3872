// /1.0/projects
/* oxlint-disable max-lines-per-function -- a list of routes, each of them short */
import type { FastifyRequest } from 'fastify';
import type { ProjectRecord } from '#src/engine/db/projects.ts';
import type { Engine } from '#src/engine/engine.ts';
import { AppError } from '#src/lib/errors.ts';
import type { ApiApp } from './app.ts';
import { checkIfMatch, created, operation, sync, syncWithEtag, translating } from './envelope.ts';
import { parseFilter } from './filter.ts';
import { ListQuery, partial, pathParams, StringMap } from './schema.ts';
import { Type } from './type.ts';

const Content = { description: Type.String(), config: StringMap };
const Project = Type.Object({ name: Type.String(), ...Content, used_by: Type.Array(Type.String()) });
const Params = pathParams('name');
const Put = partial(Content);
const Post = partial({ name: Type.String(), ...Content });
const Rename = partial({ name: Type.String() });
const Usage = Type.Object({ Limit: Type.Integer({ description: '-1: none' }), Usage: Type.Integer() });
const State = Type.Object({ resources: Type.Record(Type.String(), Usage) });

const mutableOf = ({ description, config }: ProjectRecord) => [description, config];
const urlOf = ({ name }: ProjectRecord) => `/1.0/projects/${encodeURIComponent(name)}`;

/** Restricted clients know of their own projects alone. */
function mayUse({ caller }: FastifyRequest, name: string): boolean {
  return caller.projects?.has(name) ?? true;
}

export function registerProjectRoutes(app: ApiApp, { projects, operations }: Pick<Engine, 'projects' | 'operations'>) {
  const view = ({ name, description, config }: ProjectRecord) => {
    return { config, description, name, used_by: projects.usedBy(name) };
  };
  const find = (request: FastifyRequest) => {
    const { name } = request.params as { readonly name: string };
    if (!mayUse(request, name)) throw new AppError('forbidden', 'not authorized');
    return projects.get(name);
  };

  app.get(
    '/1.0/projects',
    { schema: { summary: 'List projects', querystring: ListQuery }, config: { answer: Type.Array(Project) } },
    async (request) => {
      const list = projects.list().filter(({ name }) => mayUse(request, name));
      const { recursion = 0, filter } = request.query;
      return sync(recursion > 0 ? list.map(view).filter(parseFilter(filter)) : list.map(urlOf));
    },
  );

  app.post(
    '/1.0/projects',
    { schema: { summary: 'Create a project', body: Post }, config: { creates: true, admin: true } },
    async (request, reply) => {
      const { name = '', description = '', config = {} } = request.body;
      await translating({ conflict: { status: 500 } }, () => projects.create(name, { description, config }));
      return created(reply, `/1.0/projects/${encodeURIComponent(name)}`);
    },
  );

  app.get(
    '/1.0/projects/:name',
    { schema: { summary: 'Get a project', params: Params }, config: { answer: Project } },
    async (request, reply) => {
      const project = find(request);
      return syncWithEtag(reply, view(project), mutableOf(project));
    },
  );

  for (const method of ['PUT', 'PATCH'] as const) {
    app.route({
      method,
      url: '/1.0/projects/:name',
      schema: {
        summary: method === 'PUT' ? 'Replace a project' : 'Change a project',
        params: Params,
        body: Put,
      },
      config: { admin: true },
      handler: async (request) => {
        const project = find(request);
        checkIfMatch(request, mutableOf(project));
        const old = method === 'PUT' ? { description: '', config: {} } : project;
        const { description = old.description, config = {} } = request.body;
        projects.update(project, { description, config: { ...old.config, ...config } });
        return sync();
      },
    });
  }

  app.post(
    '/1.0/projects/:name',
    { schema: { summary: 'Rename a project', params: Params, body: Rename }, config: { async: true, admin: true } },
    async ({ params, body: { name = '' } }, reply) => operation(reply, operations, projects.rename(params.name, name)),
  );

  app.delete(
    '/1.0/projects/:name',
    { schema: { summary: 'Delete a project', params: Params }, config: { admin: true } },
    async ({ params }) => {
      projects.delete(params.name);
      return sync();
    },
  );

  app.get(
    '/1.0/projects/:name/state',
    { schema: { summary: 'Get what a project takes of its limits', params: Params }, config: { answer: State } },
    async (request) => sync({ resources: projects.state(find(request).name) }),
  );
}
