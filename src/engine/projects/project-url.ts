// How URLs name the project of a thing.
import { DEFAULT_PROJECT } from '../db/projects.ts';

/** What a URL in an answer ends with. */
export function projectSuffix(project: string): string {
  return project === DEFAULT_PROJECT ? '' : `?project=${encodeURIComponent(project)}`;
}

const SCOPED =
  /^\/1\.0\/(instances|containers|images|profiles|networks|network-acls|storage-pools\/[^/]+\/volumes)\/[^?]+$/u;

/** The URL of something that belongs to `project`, as events and operations show it. */
export function inProject(url: string, project: string): string {
  return SCOPED.test(url) ? `${url}${projectSuffix(project)}` : url;
}
