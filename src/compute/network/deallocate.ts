// Giving ports back: those that Nova made are deleted, those of the user unbound (section 8.3, deallocate).
import { kindOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { limited } from '#src/lib/wait.ts';
import type { NeutronNetwork, NeutronPort } from '#src/openstack/types.ts';
import type { Asking } from './choose-networks.ts';
import { serviceCredentials, userCredentials } from './credentials.ts';
import { UNDO_LIMIT_MS } from '../undo-limit.ts';

/** Keys of a binding's profile that name devices of this host. */
const HOST_KEYS: ReadonlySet<string> = new Set([
  'pci_vendor_info',
  'pci_slot',
  'allocation',
  'arq_uuid',
  'physical_network',
  'card_serial_number',
  'vf_num',
  'pf_mac_address',
  'device_mac_address',
]);

/** Tries every port before it rejects; only what could not be deleted is an error. Has its own time limit: it is an undo. */
export async function releasePorts(
  asking: Asking & { readonly log: Log },
  { keep, remove }: { readonly keep: readonly string[]; readonly remove: readonly string[] },
): Promise<void> {
  const mine = { ...asking, signal: limited(UNDO_LIMIT_MS) };
  const [results] = await Promise.all([
    Promise.allSettled(remove.map((id) => deleteOne(mine, id))),
    unbindAll(mine, keep),
  ]);
  const failure = results.find((result) => result.status === 'rejected');
  if (failure !== undefined) throw failure.reason;
}

/** In the user's name; a token that expired during a long operation must not leave the port behind. */
async function deleteOne({ neutron, context, signal }: Asking, id: string): Promise<void> {
  try {
    await neutron.deletePort(userCredentials(context), id, signal);
  } catch (error) {
    if (kindOf(error) !== 'unauthorized') throw error;
    await neutron.deletePort(serviceCredentials(context), id, signal);
  }
}

async function unbindAll(asking: Asking & { readonly log: Log }, ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return;
  const extensions = await asking.neutron
    .extensions(serviceCredentials(asking.context), asking.signal)
    .catch((): ReadonlySet<string> => new Set());
  await Promise.all(
    ids.map((id) =>
      unbind(asking, id, extensions.has('dns-integration')).catch((error: unknown) => {
        if (kindOf(error) !== 'not_found') asking.log.warn('cannot unbind a port', { port: id, error });
      }),
    ),
  );
}

async function unbind({ neutron, context, signal }: Asking, id: string, hasDns: boolean): Promise<void> {
  const admin = serviceCredentials(context);
  const port = await neutron.getPort(admin, id, signal);
  const network = hasDns ? await networkOf({ neutron, context, signal }, port.network_id) : undefined;
  const hasOwnDomain = typeof network?.['dns_domain'] === 'string' && network['dns_domain'] !== '';
  await neutron.updatePort(
    admin,
    id,
    {
      device_id: '',
      device_owner: '',
      'binding:host_id': null,
      'binding:profile': withoutHostKeys(port['binding:profile']),
      ...(hasDns && !hasOwnDomain && { dns_name: '' }),
    },
    signal,
  );
  // The record is in the user's zone: the name is taken out with the user's rights.
  if (hasDns && hasOwnDomain) await neutron.updatePort(userCredentials(context), id, { dns_name: '' }, signal);
}

async function networkOf(
  { neutron, context, signal }: Pick<Asking, 'neutron' | 'context' | 'signal'>,
  id: string,
): Promise<NeutronNetwork | undefined> {
  const [network] = await neutron.listNetworks(serviceCredentials(context), { id }, signal);
  return network;
}

/** The port stays the instance's; only the host is no more its own (shelve offload). One that is gone needs nothing. */
export async function unbindFromHost(
  { neutron, context, signal }: Pick<Asking, 'neutron' | 'context' | 'signal'>,
  port: NeutronPort,
): Promise<void> {
  const changes = { 'binding:host_id': null, 'binding:profile': withoutHostKeys(port['binding:profile']) };
  try {
    await neutron.updatePort(serviceCredentials(context), port.id, changes, signal);
  } catch (error) {
    if (kindOf(error) !== 'not_found') throw error;
  }
}

function withoutHostKeys(profile: unknown): Readonly<Record<string, unknown>> {
  if (typeof profile !== 'object' || profile === null) return {};
  return Object.fromEntries(Object.entries(profile).filter(([key]) => !HOST_KEYS.has(key)));
}
