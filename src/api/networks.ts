// /1.0/networks: managed ones, and the other interfaces of the host
/* oxlint-disable max-lines-per-function -- a list of routes, each of them short */
import type { NetworkRecord } from '#src/engine/db/records.ts';
import type { Engine } from '#src/engine/engine.ts';
import type { HostInterface } from '#src/engine/networks/host-interfaces.ts';
import { INTERFACE_PROJECT } from '#src/engine/networks/networks.ts';
import { AppError } from '#src/lib/errors.ts';
import { limited } from '#src/lib/wait.ts';
import type { ApiApp } from './app.ts';
import { checkIfMatch, created, sync, syncWithEtag } from './envelope.ts';
import { parseFilter } from './filter.ts';
import { existingProject } from './project.ts';
import { ListQuery, partial, pathParams, ProjectQuery, StringMap } from './schema.ts';
import { Type } from './type.ts';

const Network = Type.Object({
  name: Type.String(),
  type: Type.String(),
  managed: Type.Boolean(),
  config: StringMap,
  description: Type.String(),
  used_by: Type.Array(Type.String()),
  status: Type.String(),
});
const Lease = Type.Object({
  hostname: Type.String(),
  hwaddr: Type.String(),
  address: Type.String(),
  type: Type.String(),
  location: Type.String(),
});
const Params = pathParams('network');
const Post = partial({ name: Type.String(), type: Type.String(), description: Type.String(), config: StringMap });
const Put = partial({ description: Type.String(), config: StringMap });
const Rename = partial({ name: Type.String() });

const CHANGE_MS = 120_000;

type Deps = Pick<Engine, 'networks'>;

const urlOf = (name: string) => `/1.0/networks/${encodeURIComponent(name)}`;
const mutableOf = ({ name, type, description, config }: NetworkRecord) => [name, true, type, description, config];

export function registerNetworkRoutes(app: ApiApp, deps: Deps): void {
  registerNetworks(app, deps);
  registerNetwork(app, deps);
  registerChanges(app, deps);
}

function managedView({ networks }: Deps, network: NetworkRecord): object {
  const { name, type, description, config } = network;
  const status = networks.isUp(network) ? 'Created' : 'Unavailable';
  return {
    config,
    description,
    name,
    type,
    used_by: networks.usedBy(network),
    managed: true,
    status,
    locations: ['none'],
  };
}

function interfaceView({ networks }: Deps, { name, type }: HostInterface): object {
  const usedBy = networks.usedBy({ project: INTERFACE_PROJECT, name });
  return { config: {}, description: '', name, type, used_by: usedBy, managed: false, status: '', locations: null };
}

/** A project with networks of its own sees none of the host, others those that its restrictions leave. */
async function hostInterfaces({ networks }: Deps, project: string): Promise<readonly string[]> {
  if (networks.holder(project) !== INTERFACE_PROJECT) return [];
  const names = await networks.interfaces.names();
  const others = names.filter((name) => networks.find(project, name) === undefined);
  return others.filter((name) => networks.isSeen(project, name, { isManaged: false }));
}

function checkSeen(
  { networks }: Deps,
  project: string,
  { name, isManaged }: { name: string; isManaged: boolean },
): void {
  if (!networks.isSeen(project, name, { isManaged })) throw new AppError('not_found', 'Network not found');
}

function registerNetworks(app: ApiApp, deps: Deps): void {
  const { networks } = deps;

  app.get(
    '/1.0/networks',
    { schema: { summary: 'List networks', querystring: ListQuery }, config: { answer: Type.Array(Network) } },
    async (request) => {
      const project = existingProject(request);
      const { recursion = 0, filter } = request.query;
      const managed = networks.list(project);
      const others = await hostInterfaces(deps, project);
      if (recursion === 0) return sync([...managed.map(({ name }) => urlOf(name)), ...others.map(urlOf)]);
      const seen = await Promise.all(others.map((name) => networks.interfaces.get(name)));
      const views = [
        ...managed.map((network) => managedView(deps, network)),
        ...seen.map((one) => interfaceView(deps, one)),
      ];
      return sync(views.filter(parseFilter(filter)));
    },
  );

  app.post(
    '/1.0/networks',
    {
      schema: { summary: 'Create a network', body: Post, querystring: ProjectQuery },
      config: { admin: true, creates: true },
    },
    async (request, reply) => {
      const project = existingProject(request, (name) => `Failed to load project "${name}": `);
      const { name = '', type = '', description = '', config = {} } = request.body;
      await networks.create({ project, name, type, description, config }, limited(CHANGE_MS));
      return created(reply, urlOf(name));
    },
  );
}

function registerNetwork(app: ApiApp, deps: Deps): void {
  const { networks } = deps;

  app.get(
    '/1.0/networks/:network',
    { schema: { summary: 'Get a network', params: Params, querystring: ProjectQuery }, config: { answer: Network } },
    async (request, reply) => {
      const project = existingProject(request);
      const { network: name } = request.params;
      const managed = networks.find(project, name);
      checkSeen(deps, project, { name, isManaged: managed !== undefined });
      if (managed) return syncWithEtag(reply, managedView(deps, managed), mutableOf(managed));
      if (networks.holder(project) !== INTERFACE_PROJECT) throw new AppError('not_found', 'Network not found');
      const found = await networks.interfaces.get(name);
      return syncWithEtag(reply, interfaceView(deps, found), [found.name, false, found.type, '', {}]);
    },
  );

  app.get(
    '/1.0/networks/:network/leases',
    {
      schema: { summary: 'List the addresses that are in use on a network', params: Params, querystring: ProjectQuery },
      config: { answer: Type.Array(Lease) },
    },
    async (request) => sync(await networks.leases(existingProject(request), request.params.network)),
  );

  app.get(
    '/1.0/networks/:network/state',
    { schema: { summary: 'Get the state of an interface', params: Params, querystring: ProjectQuery } },
    async (request) => {
      const project = existingProject(request);
      const { network: name } = request.params;
      checkSeen(deps, project, { name, isManaged: networks.find(project, name) !== undefined });
      const state = await networks.interfaces.state(name);
      return sync({ ...state, bond: null, vlan: null, ovn: null });
    },
  );
}

function registerChanges(app: ApiApp, { networks }: Deps): void {
  const changing = { params: Params, querystring: ProjectQuery };

  app.put(
    '/1.0/networks/:network',
    { schema: { ...changing, body: Put, summary: 'Replace the configuration of a network' }, config: { admin: true } },
    async (request) => {
      const network = networks.seen(existingProject(request), request.params.network);
      checkIfMatch(request, mutableOf(network));
      const { description = '', config = {} } = request.body;
      await networks.update(network, { description, config }, limited(CHANGE_MS));
      return sync();
    },
  );

  app.patch(
    '/1.0/networks/:network',
    { schema: { ...changing, body: Put, summary: 'Change the configuration of a network' }, config: { admin: true } },
    async (request) => {
      const network = networks.seen(existingProject(request), request.params.network);
      checkIfMatch(request, mutableOf(network));
      const { description = network.description, config } = request.body;
      await networks.update(network, { description, config: { ...network.config, ...config } }, limited(CHANGE_MS));
      return sync();
    },
  );

  app.post(
    '/1.0/networks/:network',
    { schema: { ...changing, body: Rename, summary: 'Rename a network' }, config: { admin: true, creates: true } },
    async (request, reply) => {
      const network = networks.seen(existingProject(request), request.params.network);
      const { name = '' } = request.body;
      await networks.rename(network, name, limited(CHANGE_MS));
      return created(reply, urlOf(name));
    },
  );

  app.delete(
    '/1.0/networks/:network',
    { schema: { ...changing, summary: 'Delete a network' }, config: { admin: true } },
    async (request) => {
      const network = networks.seen(existingProject(request), request.params.network);
      await networks.delete(network, limited(CHANGE_MS));
      return sync();
    },
  );
}
