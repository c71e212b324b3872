// /1.0/networks/NAME/forwards
/* oxlint-disable max-lines-per-function -- a list of routes, each of them short */
import type { NetworkForward } from '#drivers/network/driver.ts';
import type { Engine } from '#src/engine/engine.ts';
import { limited } from '#src/lib/wait.ts';
import type { Static } from 'typebox';
import type { ApiApp } from './app.ts';
import { checkIfMatch, created, sync, syncWithEtag } from './envelope.ts';
import { existingProject } from './project.ts';
import { ListQuery, partial, pathParams, ProjectQuery, StringMap } from './schema.ts';
import { Type } from './type.ts';

/** Of networks: each needs all of its endpoints. */
export const FORWARD_EXTENSIONS = ['network_forward'] as const;

const PortText = Type.String({ description: 'Ports and ranges: 80,90-92' });
const Port = partial({
  description: Type.String(),
  protocol: Type.String({ description: 'tcp or udp' }),
  listen_port: PortText,
  target_port: PortText,
  target_address: Type.String(),
});
const Content = { description: Type.String(), config: StringMap, ports: Type.Array(Port, { maxItems: 4096 }) };
const Put = partial(Content);
const Post = partial({ listen_address: Type.String(), ...Content });
const Forward = Type.Object({ ...Content, listen_address: Type.String(), location: Type.String() });
const Params = pathParams('network');
const OneParams = pathParams('network', 'address');

const CHANGE_MS = 60_000;

const urlOf = (network: string, address: string): string => {
  return `/1.0/networks/${encodeURIComponent(network)}/forwards/${encodeURIComponent(address)}`;
};

function view({ description, config, ports, listenAddress }: NetworkForward) {
  const shown = ports.map((port) => ({
    description: port.description,
    protocol: port.protocol,
    listen_port: port.listenPort,
    target_port: port.targetPort,
    target_address: port.targetAddress,
  }));
  return { description, config, ports: shown, listen_address: listenAddress, location: 'none' };
}

function mutableOf(forward: NetworkForward): readonly unknown[] {
  const { listen_address: address, description, config, ports } = view(forward);
  return [address, description, config, ports];
}

function portsOf(ports: readonly Static<typeof Port>[]) {
  return ports.map((port) => ({
    description: port.description ?? '',
    protocol: port.protocol ?? '',
    listenPort: port.listen_port ?? '',
    targetPort: port.target_port ?? '',
    targetAddress: port.target_address ?? '',
  }));
}

export function registerForwardRoutes(app: ApiApp, { forwards }: Pick<Engine, 'forwards'>): void {
  app.get(
    '/1.0/networks/:network/forwards',
    {
      schema: { summary: 'List the forwards of a network', params: Params, querystring: ListQuery },
      config: { answer: Type.Array(Forward) },
    },
    async (request) => {
      const key = { project: existingProject(request), name: request.params.network };
      const list = forwards.list(key);
      const { recursion = 0 } = request.query;
      return sync(recursion > 0 ? list.map(view) : list.map(({ listenAddress }) => urlOf(key.name, listenAddress)));
    },
  );

  app.post(
    '/1.0/networks/:network/forwards',
    {
      schema: { summary: 'Create a forward', params: Params, body: Post, querystring: ProjectQuery },
      config: { admin: true, creates: true },
    },
    async (request, reply) => {
      const key = { project: existingProject(request), name: request.params.network };
      const { listen_address: listenAddress = '', description = '', config = {}, ports = [] } = request.body;
      const wanted = { listenAddress, description, config, ports: portsOf(ports) };
      const forward = await forwards.create(key, wanted, limited(CHANGE_MS));
      return created(reply, urlOf(key.name, forward.listenAddress));
    },
  );

  app.get(
    '/1.0/networks/:network/forwards/:address',
    {
      schema: { summary: 'Get a forward', params: OneParams, querystring: ProjectQuery },
      config: { answer: Forward },
    },
    async (request, reply) => {
      const key = { project: existingProject(request), name: request.params.network };
      const forward = forwards.get(key, request.params.address);
      return syncWithEtag(reply, view(forward), mutableOf(forward));
    },
  );

  app.put(
    '/1.0/networks/:network/forwards/:address',
    {
      schema: { summary: 'Replace a forward', params: OneParams, body: Put, querystring: ProjectQuery },
      config: { admin: true },
    },
    async (request) => {
      const key = { project: existingProject(request), name: request.params.network };
      const former = forwards.get(key, request.params.address);
      checkIfMatch(request, mutableOf(former));
      const { description = '', config = {}, ports = [] } = request.body;
      await forwards.update(key, former, { description, config, ports: portsOf(ports) }, limited(CHANGE_MS));
      return sync();
    },
  );

  app.patch(
    '/1.0/networks/:network/forwards/:address',
    {
      schema: { summary: 'Change a forward', params: OneParams, body: Put, querystring: ProjectQuery },
      config: { admin: true },
    },
    async (request) => {
      const key = { project: existingProject(request), name: request.params.network };
      const former = forwards.get(key, request.params.address);
      checkIfMatch(request, mutableOf(former));
      const { description = former.description, config, ports } = request.body;
      const next = {
        description,
        config: { ...former.config, ...config },
        ports: ports ? portsOf(ports) : former.ports,
      };
      await forwards.update(key, former, next, limited(CHANGE_MS));
      return sync();
    },
  );

  app.delete(
    '/1.0/networks/:network/forwards/:address',
    {
      schema: { summary: 'Delete a forward', params: OneParams, querystring: ProjectQuery },
      config: { admin: true },
    },
    async (request) => {
      const key = { project: existingProject(request), name: request.params.network };
      await forwards.delete(key, request.params.address, limited(CHANGE_MS));
      return sync();
    },
  );
}
