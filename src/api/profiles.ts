// /1.0/profiles
/* oxlint-disable max-lines-per-function -- a list of routes, each of them short */
import type { ProfileRecord } from '#src/engine/db/records.ts';
import type { Engine } from '#src/engine/engine.ts';
import { limited } from '#src/lib/wait.ts';
import type { ApiApp } from './app.ts';
import { checkIfMatch, created, sync, syncWithEtag, translating } from './envelope.ts';
import { parseFilter } from './filter.ts';
import { allProjects, AllProjectsQuery, existingProject, projectSuffix } from './project.ts';
import { DeviceMapSchema, partial, pathParams, ProjectQuery, StringMap } from './schema.ts';
import { Type } from './type.ts';

const Content = { description: Type.String(), config: StringMap, devices: DeviceMapSchema };
const Put = partial(Content);
const Post = partial({ name: Type.String(), ...Content });
const Rename = partial({ name: Type.String() });
const Profile = Type.Object({ name: Type.String(), ...Content, used_by: Type.Array(Type.String()) });
const Params = pathParams('name');

/** Applying a profile to the instances that use it ends in this time. */
const APPLY_MS = 10 * 60_000;

const mutableOf = ({ config, description, devices }: ProfileRecord) => [config, description, devices];

type Deps = Pick<Engine, 'profiles'>;

export function registerProfileRoutes(app: ApiApp, { profiles }: Deps): void {
  const view = (profile: ProfileRecord) => {
    const { name, description, config, devices } = profile;
    return { config, description, devices, name, used_by: profiles.usedBy(profile) };
  };
  const url = ({ name, project }: ProfileRecord) =>
    `/1.0/profiles/${encodeURIComponent(name)}${projectSuffix(project)}`;

  app.get(
    '/1.0/profiles',
    { schema: { summary: 'List profiles', querystring: AllProjectsQuery }, config: { answer: Type.Array(Profile) } },
    async (request) => {
      const { recursion = 0, filter } = request.query;
      const sees = allProjects(request);
      if (sees) {
        const all = profiles.listAll().filter(({ project }) => sees(project));
        const views = all.map((profile) => ({ ...view(profile), project: profile.project }));
        return sync(recursion === 0 ? all.map(url) : views.filter(parseFilter(filter)));
      }
      const list = profiles.list(existingProject(request));
      return sync(recursion === 0 ? list.map(url) : list.map(view).filter(parseFilter(filter)));
    },
  );

  app.post(
    '/1.0/profiles',
    { schema: { summary: 'Create a profile', body: Post, querystring: ProjectQuery }, config: { creates: true } },
    async (request, reply) => {
      const { name = '', description = '', config = {}, devices = {} } = request.body;
      const prefix = `Error inserting "${name}" into database: `;
      await translating({ conflict: { status: 500, prefix } }, () =>
        profiles.create(existingProject(request), name, { description, config, devices }),
      );
      return created(reply, `/1.0/profiles/${encodeURIComponent(name)}`);
    },
  );

  app.get(
    '/1.0/profiles/:name',
    { schema: { summary: 'Get a profile', params: Params, querystring: ProjectQuery }, config: { answer: Profile } },
    async (request, reply) => {
      const project = existingProject(request);
      const profile = await translating({ not_found: { status: 404, prefix: 'Fetch profile: ' } }, () =>
        profiles.get(project, request.params.name),
      );
      return syncWithEtag(reply, view(profile), mutableOf(profile));
    },
  );

  app.put(
    '/1.0/profiles/:name',
    { schema: { summary: 'Replace a profile', params: Params, body: Put, querystring: ProjectQuery } },
    async (request) => {
      const profile = profiles.get(existingProject(request), request.params.name);
      checkIfMatch(request, mutableOf(profile));
      const { description = '', config = {}, devices = {} } = request.body;
      await applied(() => profiles.update(profile, { description, config, devices }, limited(APPLY_MS)));
      return sync();
    },
  );

  app.patch(
    '/1.0/profiles/:name',
    { schema: { summary: 'Change a profile', params: Params, body: Put, querystring: ProjectQuery } },
    async (request) => {
      const profile = profiles.get(existingProject(request), request.params.name);
      checkIfMatch(request, mutableOf(profile));
      const { description = profile.description, config, devices } = request.body;
      const content = {
        description,
        config: { ...profile.config, ...config },
        devices: { ...profile.devices, ...devices },
      };
      await applied(() => profiles.update(profile, content, limited(APPLY_MS)));
      return sync();
    },
  );

  app.post(
    '/1.0/profiles/:name',
    {
      schema: { summary: 'Rename a profile', params: Params, body: Rename, querystring: ProjectQuery },
      config: { creates: true },
    },
    async (request, reply) => {
      const { name = '' } = request.body;
      await translating({ conflict: { status: 500 } }, () =>
        profiles.rename(existingProject(request), request.params.name, name),
      );
      return created(reply, `/1.0/profiles/${encodeURIComponent(name)}`);
    },
  );

  app.delete(
    '/1.0/profiles/:name',
    { schema: { summary: 'Delete a profile', params: Params, querystring: ProjectQuery } },
    async (request) => {
      const project = existingProject(request);
      await translating({ conflict: { status: 500 } }, () => profiles.delete(project, request.params.name));
      return sync();
    },
  );
}

/** A profile that instances refuse, or that says what none may say, is a 500 in LXD. */
function applied(work: () => Promise<void>): Promise<void> {
  return translating({ invalid: { status: 500 }, conflict: { status: 500 } }, work);
}
