// The host interface below a nic, and the VLAN interface that is made on it when the nic asks for one.
import type { Host } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';
import type { NicDevice, NicVolatile } from '../driver.ts';

/** `parent`, or `parent.vlan`. */
export function parentName({ config }: NicDevice): string {
  const vlan = config['vlan'] ?? '';
  return vlan === '' ? (config['parent'] ?? '') : `${config['parent']}.${vlan}`;
}

/** Whether openParent() will make the VLAN interface: what makes it, removes it. */
export async function planParent(host: Host, nic: NicDevice): Promise<NicVolatile> {
  const parent = nic.config['parent'] ?? '';
  if (!(await host.links.find(parent))) throw new AppError('not_found', `Parent device '${parent}' doesn't exist`);
  const name = parentName(nic);
  const makes = name !== parent && !(await host.links.find(name));
  return { 'last_state.created': String(makes) };
}

/** Makes the VLAN interface if planParent() said so. */
export async function openParent(host: Host, nic: NicDevice): Promise<void> {
  const { config, volatile } = nic;
  // Two nics of an instance may share it.
  if (volatile['last_state.created'] !== 'true' || (await host.links.find(parentName(nic)))) return;
  const gvrp = /^(true|1|yes|on)$/i.test(config['gvrp'] ?? '');
  const parent = config['parent'] ?? '';
  await host.links.create({ kind: 'vlan', name: parentName(nic), parent, id: Number(config['vlan']), gvrp, up: true });
}

/** Removes the VLAN interface if openParent() made it. */
export async function closeParent(host: Host, nic: NicDevice): Promise<void> {
  if (nic.volatile['last_state.created'] === 'true') await host.links.remove(parentName(nic));
}
