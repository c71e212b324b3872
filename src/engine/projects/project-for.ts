// Which project has what another one uses.
import type { EngineDatabase } from '../db/database.ts';
import type { ProjectFeature } from '../db/projects.ts';

/** The project that holds the images, profiles, custom volumes or networks of `project`: itself, or the default one. */
export function projectFor(
  { projects }: Pick<EngineDatabase, 'projects'>,
  feature: ProjectFeature,
  project: string,
): string {
  return projects.holder(feature, project);
}
