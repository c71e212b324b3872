// Which ports and networks an instance gets: the user's wishes checked against Neutron (section 8.3, allocate 1 to 3).
import { kindOf } from '#src/lib/errors.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { novaException } from '#src/nova/exceptions.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import type { Neutron, NeutronNetwork, NeutronPort } from '#src/openstack/types.ts';
import { serviceCredentials, userCredentials } from './credentials.ts';
import type { NetworkWish, NetworkWishes } from './request.ts';

/** One interface to make: on a network, with the user's port or with one of our own. */
export interface ChosenInterface {
  readonly network: NeutronNetwork;
  readonly port: NeutronPort | null;
  readonly address: string | null;
  readonly tag: string | null;
}

export interface Asking {
  readonly neutron: Neutron;
  readonly context: RequestContext;
  readonly instance: NovaObject<'Instance'>;
  readonly signal: AbortSignal;
}

/** In the order of the wishes. Empty: nothing was asked for and there is no network. */
export async function chooseInterfaces(asking: Asking, wishes: NetworkWishes): Promise<readonly ChosenInterface[]> {
  const named = wishes.isAuto ? [] : wishes.list;
  const ports = await Promise.all(
    named.map(async ({ portId }) => (portId === null ? null : await usablePort(asking, portId))),
  );
  const slots = named
    .map((wish, index) => ({ wish, port: ports[index] ?? null }))
    .map(({ wish, port }) => ({ wish, port, networkId: port?.network_id ?? wish.networkId }));
  const ids = slots.flatMap(({ networkId }) => (networkId === null ? [] : [networkId]));
  const networks = ids.length > 0 ? await namedNetworks(asking, ids) : await anyNetwork(asking, wishes);
  refuseExternal(asking.context, networks);
  if (ids.length === 0) return networks.map((network) => ({ network, port: null, address: null, tag: null }));
  const known = new Map(networks.map((network) => [network.id, network]));
  return slots.flatMap(({ wish, port, networkId }) => chosen(wish, port, networkId, known));
}

function chosen(
  { address, tag, portId }: NetworkWish,
  port: NeutronPort | null,
  networkId: string | null,
  known: ReadonlyMap<string, NeutronNetwork>,
): readonly ChosenInterface[] {
  if (networkId === null) return [];
  const network = known.get(networkId);
  if (network !== undefined) return [{ network, port, address, tag }];
  if (portId === null) throw novaException('NetworkNotFound', { network_id: networkId });
  return [];
}

/** Read with the service user's rights: the user may not see all that matters of a port. */
async function usablePort({ neutron, context, instance, signal }: Asking, id: string): Promise<NeutronPort> {
  const port = await neutron.getPort(serviceCredentials(context), id, signal).catch((error: unknown) => {
    if (kindOf(error) === 'not_found') throw novaException('PortNotFound', { port_id: id }, { cause: error });
    throw error;
  });
  const uuid = instance.get('uuid');
  if (port['tenant_id'] !== instance.get('project_id')) {
    throw novaException('PortNotUsable', { port_id: id, instance: uuid });
  }
  if (isFilled(port['device_id'])) throw novaException('PortInUse', { port_id: id });
  if (isFilled(port['dns_name']) && port['dns_name'] !== instance.find('hostname')) {
    throw novaException('PortNotUsable', { port_id: id, instance: uuid });
  }
  return refuseFailedBinding(port);
}

export function refuseFailedBinding(port: NeutronPort): NeutronPort {
  if (port['binding:vif_type'] === 'binding_failed') throw novaException('PortBindingFailed', { port_id: port.id });
  return port;
}

async function namedNetworks(
  { neutron, context, signal }: Asking,
  ids: readonly string[],
): Promise<readonly NeutronNetwork[]> {
  const networks = await neutron.listNetworks(userCredentials(context), { id: [...new Set(ids)] }, signal);
  const missing = ids.find((id) => !networks.some((network) => network.id === id));
  if (networks.length === 0 && missing !== undefined) throw novaException('NetworkNotFound', { network_id: missing });
  return networks;
}

/** Nothing was named: the one network that the project can use. */
async function anyNetwork(asking: Asking, wishes: NetworkWishes): Promise<readonly NeutronNetwork[]> {
  const networks = await availableNetworks(asking, wishes.isAuto);
  if (networks.length > 1) throw novaException('NetworkAmbiguous', {});
  if (networks.length === 1) return networks;
  if (wishes.isAuto) return [await autoAllocated(asking)];
  if (wishes.list.length === 0) return [];
  throw novaException('InterfaceAttachFailedNoNetwork', { project_id: asking.instance.get('project_id') });
}

async function availableNetworks(
  { neutron, context, instance, signal }: Asking,
  isAuto: boolean,
): Promise<readonly NeutronNetwork[]> {
  const credentials = userCredentials(context);
  const ownOnes = {
    tenant_id: instance.get('project_id') ?? '',
    shared: false,
    ...(isAuto && { admin_state_up: true }),
  };
  const [own, shared] = await Promise.all([
    neutron.listNetworks(credentials, ownOnes, signal),
    neutron.listNetworks(credentials, { shared: true }, signal),
  ]);
  return [...own, ...shared];
}

async function autoAllocated({ neutron, context, instance, signal }: Asking): Promise<NeutronNetwork> {
  const projectId = instance.get('project_id') ?? '';
  const credentials = userCredentials(context);
  try {
    const id = await neutron.getAutoAllocatedTopology(credentials, projectId, signal);
    const [network] = await neutron.listNetworks(credentials, { id }, signal);
    if (network !== undefined) return network;
  } catch (error) {
    signal.throwIfAborted();
    throw novaException('UnableToAutoAllocateNetwork', { project_id: projectId }, { cause: error });
  }
  throw novaException('UnableToAutoAllocateNetwork', { project_id: projectId });
}

/** The policy network:attach_external_network with its default rule: administrators only. */
function refuseExternal(context: RequestContext, networks: readonly NeutronNetwork[]): void {
  const forbidden = networks.find((network) => network['router:external'] === true && network['shared'] !== true);
  if (forbidden !== undefined && !context.isAdmin) {
    throw novaException('ExternalNetworkAttachForbidden', { network_uuid: forbidden.id });
  }
}

/** Ids of the named security groups; `default` is what Neutron gives by itself. */
export async function securityGroupIds(
  { neutron, context, instance, signal }: Asking,
  names: readonly string[],
): Promise<readonly string[]> {
  if (names.length === 0 || (names.length === 1 && names[0] === 'default')) return [];
  const query = { tenant_id: instance.get('project_id') ?? '', fields: ['id', 'name'] };
  const groups = await neutron.listSecurityGroups(userCredentials(context), query, signal);
  return names.map((name) => {
    const named = groups.filter((group) => group['name'] === name);
    if (named.length > 1) {
      const reason = `Multiple security groups found matching '${name}'. Use an ID to be more specific.`;
      throw novaException('InvalidInput', { reason });
    }
    const group = named[0] ?? groups.find(({ id }) => id === name);
    if (typeof group?.['id'] !== 'string') throw novaException('SecurityGroupNotFound', { security_group_id: name });
    return group['id'];
  });
}

function isFilled(value: unknown): boolean {
  return typeof value === 'string' && value !== '';
}
