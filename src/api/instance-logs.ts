// /1.0/instances/NAME/logs
import { createReadStream } from 'node:fs';
import type { FastifyReply } from 'fastify';
import type { ApiApp } from './app.ts';
import { sync } from './envelope.ts';
import { type InstanceDeps, instanceOf } from './instance-of.ts';
import { pathParams, ProjectQuery } from './schema.ts';

const Params = pathParams('name');
const FileParams = pathParams('name', 'file');

export function raw(reply: FastifyReply, name: string): FastifyReply {
  return reply
    .header('content-type', 'application/octet-stream')
    .header('content-disposition', `inline;filename=${name}`);
}

export function registerLogRoutes(app: ApiApp, prefix: string, deps: InstanceDeps): void {
  const { instances } = deps.instances;

  app.get(
    `/1.0/${prefix}/:name/logs`,
    { schema: { summary: 'List the log files of an instance', params: Params, querystring: ProjectQuery } },
    async (request) => {
      const info = instanceOf(request, deps);
      const names = await instances.logs(info);
      return sync(names.map((name) => `/1.0/${prefix}/${info.record.name}/logs/${name}`));
    },
  );

  app.get(
    `/1.0/${prefix}/:name/logs/:file`,
    { schema: { summary: 'Get a log file of an instance', params: FileParams, querystring: ProjectQuery } },
    async (request, reply) => {
      const { file } = request.params;
      const path = await instances.logFile(instanceOf(request, deps), file);
      return raw(reply, file).send(createReadStream(path));
    },
  );

  app.delete(
    `/1.0/${prefix}/:name/logs/:file`,
    { schema: { summary: 'Delete a log file of an instance', params: FileParams, querystring: ProjectQuery } },
    async (request) => {
      await instances.deleteLog(instanceOf(request, deps), request.params.file);
      return sync();
    },
  );
}
