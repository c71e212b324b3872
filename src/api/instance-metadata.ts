// /1.0/instances/NAME/metadata and its templates
import { Readable } from 'node:stream';
import type { ApiApp } from './app.ts';
import { readAll } from './bodies.ts';
import { ApiError, checkIfMatch, sync, syncWithEtag } from './envelope.ts';
import { type InstanceDeps, instanceOf } from './instance-of.ts';
import { raw } from './instance-logs.ts';
import { partial, pathParams, ProjectQuery, StringMap } from './schema.ts';
import { Type } from './type.ts';

const Params = pathParams('name');
const Query = Type.Object({
  path: Type.Optional(Type.String({ description: 'Name of a template file' })),
  project: Type.Optional(Type.String()),
});
const Template = partial({
  when: Type.Array(Type.String({ description: 'create, copy, rename or start' })),
  create_only: Type.Boolean(),
  template: Type.String(),
  properties: StringMap,
});
const Metadata = partial({
  architecture: Type.String(),
  creation_date: Type.Integer(),
  expiry_date: Type.Integer(),
  properties: StringMap,
  templates: Type.Record(Type.String(), Template),
});
const MAX_TEMPLATE_BYTES = 1 << 20;

export const METADATA_EXTENSIONS = ['container_edit_metadata'] as const;

export function registerMetadataRoutes(app: ApiApp, prefix: string, deps: InstanceDeps): void {
  const path = `/1.0/${prefix}/:name/metadata`;
  registerDocument(app, path, deps);
  registerTemplates(app, `${path}/templates`, deps);
}

function registerDocument(app: ApiApp, path: string, deps: InstanceDeps): void {
  const { metadata } = deps.instances;

  app.get(
    path,
    { schema: { summary: 'Get the metadata of an instance', params: Params, querystring: ProjectQuery } },
    async (request, reply) => {
      const document = await metadata.get(instanceOf(request, deps));
      return syncWithEtag(reply, document, [document]);
    },
  );

  for (const method of ['PUT', 'PATCH'] as const) {
    const summary = method === 'PUT' ? 'Replace the metadata of an instance' : 'Change the metadata of an instance';
    app.route({
      method,
      url: path,
      schema: { summary, params: Params, body: Metadata, querystring: ProjectQuery },
      handler: async (request) => {
        const info = instanceOf(request, deps);
        if (request.headers['if-match'] !== undefined) checkIfMatch(request, [await metadata.get(info)]);
        await (method === 'PUT' ? metadata.replace(info, request.body) : metadata.merge(info, request.body));
        return sync();
      },
    });
  }
}

function registerTemplates(app: ApiApp, path: string, deps: InstanceDeps): void {
  const { metadata } = deps.instances;

  app.get(
    path,
    { schema: { summary: 'List templates, or get one', params: Params, querystring: Query } },
    async (request, reply) => {
      const info = instanceOf(request, deps);
      const name = request.query.path ?? '';
      if (name === '') return sync(await metadata.templates(info));
      return raw(reply, encodeURI(name)).send(await metadata.template(info, name));
    },
  );

  app.post(
    path,
    {
      schema: { summary: 'Make or replace a template', params: Params, querystring: Query },
      config: { rawBody: 'stream' },
    },
    async (request) => {
      const info = instanceOf(request, deps);
      const name = templateOf(request.query);
      const body = (request.body ?? Readable.from([])) as Readable;
      await metadata.writeTemplate(info, name, (await readAll(body, MAX_TEMPLATE_BYTES)).toString('utf8'));
      return sync();
    },
  );

  app.delete(
    path,
    { schema: { summary: 'Delete a template', params: Params, querystring: Query } },
    async (request) => {
      await metadata.deleteTemplate(instanceOf(request, deps), templateOf(request.query));
      return sync();
    },
  );
}

function templateOf({ path = '' }: { readonly path?: string }): string {
  if (path === '') throw new ApiError(400, 'missing path argument');
  return path;
}
