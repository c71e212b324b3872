// The project of a request.
import type { FastifyRequest } from 'fastify';
import { DEFAULT_PROJECT } from '#src/engine/db/projects.ts';
import { AppError } from '#src/lib/errors.ts';
import { ApiError } from './envelope.ts';
import { ListQuery } from './schema.ts';
import { Type } from './type.ts';

export { projectSuffix } from '#src/engine/projects/project-url.ts';

/** What the request names; the resource decides what an unknown one means. */
export function projectOf(request: FastifyRequest): string {
  const { project } = request.query as { readonly project?: string };
  const name = project === undefined || project === '' ? DEFAULT_PROJECT : project;
  const { projects } = request.caller;
  if (projects && !projects.has(name)) throw new AppError('forbidden', 'not authorized');
  return name;
}

/** AppError 'not_found' when it does not exist; `prefix` is LXD's text before the reason, different per resource. */
export function existingProject(
  request: FastifyRequest,
  prefix = (name: string) => `Failed loading project "${name}": `,
): string {
  const name = projectOf(request);
  if (!request.projectExists(name)) throw new AppError('not_found', `${prefix(name)}Project not found`);
  return name;
}

/** Of lists that can be of all projects. */
export const AllProjectsQuery = Type.Object({
  ...ListQuery.properties,
  'all-projects': Type.Optional(Type.String({ description: '"true": of all projects that the caller may see' })),
});

/** Which projects a list is of, when it is of all that the caller may see; undefined: of one. */
export function allProjects(request: FastifyRequest): ((project: string) => boolean) | undefined {
  const query = request.query as { readonly project?: string; readonly 'all-projects'?: string };
  const { trusted, projects } = request.caller;
  if (query['all-projects'] !== 'true' || !trusted) return undefined;
  if (query.project !== undefined && query.project !== '') {
    throw new ApiError(400, 'Cannot specify a project when requesting all projects');
  }
  return (project) => projects?.has(project) ?? true;
}
