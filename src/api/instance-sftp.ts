// /1.0/instances/NAME/sftp: the connection becomes an SFTP session
import { AppError } from '#src/lib/errors.ts';
import type { ApiApp } from './app.ts';
import { ApiError } from './envelope.ts';
import { type InstanceDeps, instanceOf } from './instance-of.ts';
import { pathParams, ProjectQuery } from './schema.ts';
import type { Upgrades } from './upgrades.ts';

export const SFTP_EXTENSIONS = ['instance_sftp'] as const;

export function registerSftpRoutes(app: ApiApp, prefix: string, deps: InstanceDeps, upgrades: Upgrades): void {
  const path = `/1.0/${prefix}/:name/sftp`;

  app.get(
    path,
    { schema: { summary: 'SFTP with an instance (upgrade)', params: pathParams('name'), querystring: ProjectQuery } },
    async (request) => {
      instanceOf(request, deps);
      throw new ApiError(400, 'Missing or invalid upgrade header');
    },
  );

  upgrades.addRaw(path, 'sftp', ({ params, query, caller }) => {
    const project = query.get('project') || 'default';
    if (!caller.trusted || (caller.projects && !caller.projects.has(project))) {
      throw new AppError('forbidden', 'not authorized');
    }
    const { instances, sftp } = deps.instances;
    const info = instances.get(project, params['name'] ?? '');
    return (connection) => void sftp.serve(info, connection);
  });
}
