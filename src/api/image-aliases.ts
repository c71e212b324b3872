// /1.0/images/aliases
/* oxlint-disable max-lines-per-function -- a list of routes, each of them short */
import type { AliasRecord } from '#src/engine/db/records.ts';
import type { Engine } from '#src/engine/engine.ts';
import { AppError } from '#src/lib/errors.ts';
import type { ApiApp } from './app.ts';
import { checkIfMatch, created, sync, syncWithEtag } from './envelope.ts';
import { existingProject } from './project.ts';
import { ListQuery, partial, pathParams, ProjectQuery } from './schema.ts';
import { Type } from './type.ts';

const Alias = Type.Object({
  name: Type.String(),
  description: Type.String(),
  target: Type.String(),
  type: Type.String(),
});
const Post = partial({ name: Type.String(), description: Type.String(), target: Type.String(), type: Type.String() });
const Put = partial({ description: Type.String(), target: Type.String() });
const Rename = partial({ name: Type.String() });
const Params = pathParams('alias');

const view = ({ description, target, name }: AliasRecord) => ({ description, target, name, type: 'container' });
const mutableOf = ({ name, target }: AliasRecord) => [name, target];
/** Escaped twice, as LXD does it: a slash in a name must survive a path that is decoded on its way. */
const url = (name: string) => `/1.0/images/aliases/${encodeURIComponent(encodeURIComponent(name))}`;

type Deps = Pick<Engine, 'aliases' | 'context'>;

export function registerImageAliasRoutes(app: ApiApp, { aliases, context }: Deps): void {
  app.get(
    '/1.0/images/aliases',
    {
      schema: { summary: 'List aliases of images', querystring: ListQuery },
      config: { answer: Type.Array(Alias) },
    },
    async (request) => {
      const project = existingProject(request);
      const list = aliases.list(project);
      return sync((request.query.recursion ?? 0) > 0 ? list.map(view) : list.map(({ name }) => url(name)));
    },
  );

  const isPublic = (project: string, target: string) =>
    context.database.images.find(project, target)?.isPublic === true;

  app.post(
    '/1.0/images/aliases',
    { schema: { summary: 'Create an alias', body: Post, querystring: ProjectQuery }, config: { creates: true } },
    async (request, reply) => {
      const { name = '', description = '', target = '' } = request.body;
      aliases.create(existingProject(request), { name, description, target });
      return created(reply, url(name));
    },
  );

  app.get(
    '/1.0/images/aliases/:alias',
    {
      schema: { summary: 'Get an alias', params: Params, querystring: ProjectQuery },
      config: { answer: Alias, untrusted: true },
    },
    async (request, reply) => {
      const project = existingProject(request);
      const alias = aliases.get(project, request.params.alias);
      if (!request.caller.trusted && !isPublic(project, alias.target)) {
        throw new AppError('not_found', 'Image alias not found');
      }
      return syncWithEtag(reply, view(alias), mutableOf(alias));
    },
  );

  app.put(
    '/1.0/images/aliases/:alias',
    { schema: { summary: 'Replace an alias', params: Params, body: Put, querystring: ProjectQuery } },
    async (request) => {
      const project = existingProject(request);
      const alias = aliases.get(project, request.params.alias);
      checkIfMatch(request, mutableOf(alias));
      const { description = '', target = '' } = request.body;
      aliases.update(project, { name: alias.name, description, target });
      return sync();
    },
  );

  app.patch(
    '/1.0/images/aliases/:alias',
    { schema: { summary: 'Change an alias', params: Params, body: Put, querystring: ProjectQuery } },
    async (request) => {
      const project = existingProject(request);
      const alias = aliases.get(project, request.params.alias);
      checkIfMatch(request, mutableOf(alias));
      const { description = alias.description, target = alias.target } = request.body;
      aliases.update(project, { name: alias.name, description, target });
      return sync();
    },
  );

  app.post(
    '/1.0/images/aliases/:alias',
    {
      schema: { summary: 'Rename an alias', params: Params, body: Rename, querystring: ProjectQuery },
      config: { creates: true },
    },
    async (request, reply) => {
      const { name = '' } = request.body;
      aliases.rename(existingProject(request), request.params.alias, name);
      return created(reply, url(name));
    },
  );

  app.delete(
    '/1.0/images/aliases/:alias',
    { schema: { summary: 'Delete an alias', params: Params, querystring: ProjectQuery } },
    async (request) => {
      aliases.delete(existingProject(request), request.params.alias);
      return sync();
    },
  );
}
