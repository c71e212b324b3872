// Ports for an instance: created where the user has none, and bound to this host (section 8.3, allocate 4 to 7).
import { messageOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { lenient, limited } from '#src/lib/wait.ts';
import { novaException } from '#src/nova/exceptions.ts';
import { createObject } from '#src/nova/objects/object.ts';
import type { Conductor } from '#src/nova/types.ts';
import type { NeutronPort } from '#src/openstack/types.ts';
import { ownValue } from '#src/lib/own-value.ts';
import { type Asking, type ChosenInterface, refuseFailedBinding } from './choose-networks.ts';
import { serviceCredentials, userCredentials } from './credentials.ts';
import type { PortRights } from './port-rights.ts';
import { UNDO_LIMIT_MS } from '../undo-limit.ts';

/** How long the answer about a new port is waited for when the instance is not wanted any more. */
const ANSWER_LIMIT_MS = 10_000;

export interface MadePort {
  readonly chosen: ChosenInterface;
  readonly port: NeutronPort;
  /** To this host, by the request that made it. */
  readonly isBound: boolean;
}

/** What the ports of an instance have in common. */
export interface PortCustoms {
  /** Ids. */
  readonly securityGroups: readonly string[];
  /** Whether Neutron names ports in DNS. */
  readonly hasDns: boolean;
}

export interface PortMaker extends Asking {
  readonly conductor: Conductor;
  readonly log: Log;
  readonly host: string;
  readonly rights: PortRights;
}

/** All ports that are missing, side by side; the order is that of the interfaces. None is left when one fails. */
export async function createMissingPorts(
  maker: PortMaker,
  interfaces: readonly ChosenInterface[],
  customs: PortCustoms,
): Promise<readonly MadePort[]> {
  const results = await Promise.allSettled(
    interfaces.map(async (chosen) => {
      if (chosen.port === null) return await createPort(maker, chosen, customs);
      return { chosen, port: chosen.port, isBound: false };
    }),
  );
  const made = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
  const failure = results.find((result) => result.status === 'rejected');
  if (failure === undefined && !maker.signal.aborted) return made;
  await removeCreated(maker, made);
  throw failure === undefined ? maker.signal.reason : failure.reason;
}

/** In the user's name and unbound, or, when Neutron allowed the same a moment ago, bound at once in the service user's. */
async function createPort(maker: PortMaker, chosen: ChosenInterface, customs: PortCustoms): Promise<MadePort> {
  const { context, instance, rights } = maker;
  const { network, address } = chosen;
  refuseUnfiltered(chosen, customs.securityGroups);
  const hasSecurityGroups = customs.securityGroups.length > 0;
  const wish = { context, projectId: instance.get('project_id'), networkId: network.id, hasSecurityGroups };
  // an address has rules of its own in Neutron's policy
  const isBound = address === null && rights.isProven(wish);
  const body = {
    device_id: instance.get('uuid'),
    ...(address !== null && { fixed_ips: [{ ip_address: address }] }),
    network_id: network.id,
    admin_state_up: true,
    tenant_id: instance.get('project_id'),
    ...(hasSecurityGroups && { security_groups: customs.securityGroups }),
    ...(isBound && bindingOf(maker, chosen, customs.hasDns)),
  };
  const port = await requestPort(maker, { body, isBound, address });
  await refuseUnusable(maker, port);
  if (address === null) rights.prove(wish);
  return { chosen, port, isBound };
}

interface NewPort {
  readonly body: Readonly<Record<string, unknown>> & { readonly network_id: string };
  readonly isBound: boolean;
  readonly address: string | null;
}

async function requestPort(maker: PortMaker, { body, isBound, address }: NewPort): Promise<NeutronPort> {
  const { neutron, context, instance, signal } = maker;
  const credentials = isBound ? serviceCredentials(context) : userCredentials(context);
  // a request that is given up may make its port all the same, which nobody would know of then: its answer is waited for
  using patience = lenient(signal, ANSWER_LIMIT_MS);
  return await neutron.createPort(credentials, body, patience.signal).catch((error: unknown) => {
    throw asNovaError(error, { networkId: body.network_id, address, instanceUuid: instance.get('uuid') });
  });
}

/** Neutron filters by addresses: port security without a subnet, or groups without port security, cannot work. */
function refuseUnfiltered({ network }: ChosenInterface, securityGroups: readonly string[]): void {
  const subnets = network['subnets'];
  const isSecured = network['port_security_enabled'] !== false;
  const hasSubnets = Array.isArray(subnets) && subnets.length > 0;
  if (isSecured ? hasSubnets : securityGroups.length === 0) return;
  const reason = `Network ${network.id} requires port_security_enabled and subnet associated in order to apply security groups.`;
  throw novaException('InvalidInput', { reason });
}

async function refuseUnusable(maker: PortMaker, port: NeutronPort): Promise<void> {
  const { instance } = maker;
  try {
    if (port['resource_request'] !== undefined && port['resource_request'] !== null) {
      const params = { instance_uuid: instance.get('uuid'), network_id: port.network_id };
      throw novaException('NetworksWithQoSPolicyNotSupported', params);
    }
    refuseFailedBinding(port);
  } catch (error) {
    await deletePort(maker, port.id);
    throw error;
  }
}

/** Binds one port to this host, unless it is. */
export async function bindPort(maker: PortMaker, made: MadePort, hasDns: boolean): Promise<NeutronPort> {
  const { neutron, context, instance, signal } = maker;
  const { chosen, port, isBound } = made;
  if (isBound) return port;
  const profile = chosen.port?.['binding:profile'];
  const changes = {
    device_id: instance.get('uuid'),
    ...bindingOf(maker, chosen, hasDns),
    ...(isFilledObject(profile) && { 'binding:profile': profile }),
  };
  const bound = await neutron.updatePort(serviceCredentials(context), port.id, changes, signal);
  return refuseFailedBinding(bound);
}

function bindingOf({ instance, host }: PortMaker, chosen: ChosenInterface, hasDns: boolean): Record<string, unknown> {
  return {
    device_owner: `compute:${instance.find('availability_zone') ?? 'None'}`,
    'binding:host_id': host,
    ...(hasDns && !hasOwnDomain(chosen) && { dns_name: instance.find('hostname') ?? '' }),
  };
}

/** Registers a bound port with Nova; in a network with a domain of its own the user names the port. */
export async function registerPort(maker: PortMaker, { chosen, port }: MadePort, hasDns: boolean): Promise<void> {
  const { neutron, context, instance, conductor, signal } = maker;
  const row = createObject('VirtualInterface', {
    instance_uuid: instance.get('uuid'),
    tag: chosen.tag,
    address: `${String(port['mac_address'])}/${port.id}`,
    uuid: port.id,
  });
  const nameInDomain = { dns_name: instance.find('hostname') ?? '' };
  await Promise.all([
    conductor.objectMethod(context, row, { method: 'create' }),
    hasDns && hasOwnDomain(chosen)
      ? neutron.updatePort(userCredentials(context), port.id, nameInDomain, signal)
      : undefined,
  ]);
}

function hasOwnDomain({ network }: ChosenInterface): boolean {
  return isText(network['dns_domain']);
}

/** Undoes createMissingPorts(): what the user brought stays. */
export async function removeCreated(maker: PortMaker, made: readonly MadePort[]): Promise<void> {
  await Promise.all(made.flatMap(({ chosen, port }) => (chosen.port === null ? [deletePort(maker, port.id)] : [])));
}

async function deletePort({ neutron, context, log }: PortMaker, id: string): Promise<void> {
  await neutron
    .deletePort(userCredentials(context), id, limited(UNDO_LIMIT_MS))
    .catch((error: unknown) => log.warn('cannot delete a port after an error', { port: id, error }));
}

interface PortRequest {
  readonly networkId: string;
  readonly address: string | null;
  readonly instanceUuid: string;
}

const BY_TYPE: Readonly<Record<string, (request: PortRequest, cause: unknown) => Error>> = {
  OverQuota: (_request, cause) => novaException('PortLimitExceeded', {}, { cause }),
  IpAddressGenerationFailure: ({ networkId }, cause) => novaException('NoMoreFixedIps', { net: networkId }, { cause }),
  IpAddressInUse: inUse,
  IpAddressAlreadyAllocated: inUse,
  InvalidIpForNetwork: ({ networkId, address }, cause) => {
    const reason = `Fixed IP ${address} is not a valid ip address for network ${networkId}.`;
    return novaException('InvalidInput', { reason }, { cause });
  },
};

function inUse({ address, instanceUuid }: PortRequest, cause: unknown): Error {
  return novaException('FixedIpAlreadyInUse', { address, instance_uuid: instanceUuid }, { cause });
}

/** Neutron's refusals by their type; what is not listed is passed on as it is. */
function asNovaError(error: unknown, request: PortRequest): unknown {
  const type = error instanceof Error && 'code' in error ? error.code : undefined;
  const convert = typeof type === 'string' ? ownValue(BY_TYPE, type) : undefined;
  return convert === undefined ? error : convert(request, new Error(messageOf(error), { cause: error }));
}

function isText(value: unknown): boolean {
  return typeof value === 'string' && value !== '';
}

function isFilledObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && Object.keys(value).length > 0;
}
