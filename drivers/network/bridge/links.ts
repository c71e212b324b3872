// The bridge itself, its addresses, routes, members and tunnels: what is there is compared with what shall be, and only the
// difference is made. What others put on the bridge (nics, their routes) is left alone.
import { join } from 'node:path';
import type { Host } from '#src/host/host.ts';
import type { Link } from '#src/host/links.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { listItems } from '../common/validate.ts';
import type { ManagedNetwork, NetworkConfig } from '../driver.ts';
import { addressOf, mtuOf, tunnelLink, tunnelNames } from './config-keys.ts';
import { removeSwitch, type Switch, switchOf } from './switches.ts';
import { enableForwarding, prepareIpv6 } from './sysctls.ts';
import { defaultInterface, tunnelRequest } from './tunnels.ts';
import { readIfPresent } from '#src/host/read-if-present.ts';

/** What we put on the bridge beside its addresses: written down first, so that it is found whatever happens. */
interface Applied {
  readonly routes: readonly string[];
  readonly interfaces: readonly string[];
  /** Settings by name. */
  readonly tunnels: Readonly<Record<string, string>>;
  /** The bridge is, or may be, one of Open vSwitch. */
  readonly isOvs?: boolean;
}

const NOTHING: Applied = { routes: [], interfaces: [], tunnels: {} };

export interface BridgeParts {
  readonly host: Host;
  readonly log: Log;
  /** Of the network. */
  readonly directory: string;
}

export async function bridgeUp(parts: BridgeParts, network: ManagedNetwork): Promise<void> {
  const { host } = parts;
  const { name, config } = network;
  const before = await readApplied(parts);
  const after: Applied = {
    // Where a family is off the kernel takes none of its routes.
    routes: ([4, 6] as const).flatMap((family) => {
      return addressOf(config, family) === undefined ? [] : listItems(config[`ipv${family}.routes`]);
    }),
    interfaces: listItems(config['bridge.external_interfaces']),
    tunnels: tunnelsOf(config),
    ...(config['bridge.driver'] === 'openvswitch' && { isOvs: true }),
  };
  await noteApplied(parts, together(before, after));
  const device = switchOf(host, config);
  const bridge = await makeBridge(device, network);
  await prepareIpv6(host, name, config);
  await setInterfaces(parts, { bridge, device }, { before: before.interfaces, after: after.interfaces });
  await setAddresses(host, bridge, config);
  await setTunnels(host, { network, device }, { before: before.tunnels, after: after.tunnels });
  await host.links.change(name, { up: true });
  await setRoutes(host, name, { before: before.routes, after: after.routes });
  await enableForwarding(host, config);
  await noteApplied(parts, after);
}

/** Members leave by themselves with the bridge; tunnels are interfaces of their own. */
export async function bridgeDown(parts: BridgeParts, name: string): Promise<void> {
  const { host } = parts;
  const { tunnels, isOvs = false } = await readApplied(parts);
  for (const tunnel of Object.keys(tunnels)) await host.links.remove(tunnelLink(name, tunnel));
  await removeSwitch(host, name, isOvs);
}

function makeBridge(plan: Switch, { name, config, hwaddr: own }: ManagedNetwork): Promise<Link> {
  const configured = config['bridge.hwaddr'] ?? '';
  const hwaddr = (configured === '' ? own : configured).toLowerCase();
  return plan.make({ name, hwaddr, mtu: mtuOf(config) });
}

interface Made {
  readonly bridge: Link;
  readonly device: Switch;
}

interface Change<T> {
  readonly before: T;
  readonly after: T;
}

async function setInterfaces(
  { host, log }: BridgeParts,
  { bridge, device }: Made,
  { before, after }: Change<readonly string[]>,
): Promise<void> {
  for (const name of before.filter((one) => !after.includes(one))) {
    const link = await host.links.find(name);
    if (link && (await device.isMember(bridge, link))) await device.leave(bridge.name, name);
  }
  for (const name of after) {
    const link = await host.links.find(name);
    if (!link) log.warn('an external interface of a network is missing', { network: bridge.name, interface: name });
    else if (!(await device.isMember(bridge, link))) await addMember(host, { bridge, device }, link);
  }
}

async function addMember(host: Host, { bridge, device }: Made, link: Link): Promise<void> {
  const addresses = await host.links.addresses();
  if (link.master !== undefined || addresses.some(({ index, scope }) => index === link.index && scope === 'global')) {
    throw new AppError('internal', 'Only unconfigured network interfaces can be bridged');
  }
  await device.join(bridge.name, link.name);
}

/** Link-local ones are the kernel's. */
async function setAddresses(host: Host, bridge: Link, config: NetworkConfig): Promise<void> {
  const wanted = [addressOf(config, 4), addressOf(config, 6)].filter((text) => text !== undefined);
  const there = (await host.links.addresses())
    .filter(({ index, scope }) => index === bridge.index && scope !== 'link')
    .map(({ address }) => address);
  for (const address of there) if (!wanted.includes(address)) await host.links.removeAddress(bridge.name, address);
  for (const address of wanted) if (!there.includes(address)) await host.links.addAddress(bridge.name, address);
}

async function setRoutes(host: Host, name: string, { before, after }: Change<readonly string[]>): Promise<void> {
  for (const destination of before) {
    if (!after.includes(destination)) await host.links.removeRoute({ destination, interface: name });
  }
  for (const destination of after) await host.links.addRoute({ destination, interface: name });
}

async function setTunnels(
  host: Host,
  { network: { name, config }, device }: { readonly network: ManagedNetwork; readonly device: Switch },
  { before, after }: Change<Applied['tunnels']>,
): Promise<void> {
  for (const [tunnel, settings] of Object.entries(before)) {
    if (after[tunnel] !== settings) await host.links.remove(tunnelLink(name, tunnel));
  }
  for (const tunnel of Object.keys(after)) {
    const link = tunnelLink(name, tunnel);
    if (await host.links.find(link)) continue;
    const request = tunnelRequest(tunnel, config, { interface: await defaultInterface(host) });
    if (!request) continue;
    await host.links.create({ ...request, name: link, mtu: mtuOf(config) });
    await device.join(name, link);
  }
}

function tunnelsOf(config: NetworkConfig): Applied['tunnels'] {
  return Object.fromEntries(
    tunnelNames(config).map((name) => {
      const settings = Object.entries(config).filter(([key]) => key.startsWith(`tunnel.${name}.`));
      return [name, JSON.stringify([...settings.sort(([left], [right]) => (left < right ? -1 : 1)), mtuOf(config)])];
    }),
  );
}

/** What may be there in the middle of a change. Settings that change count as the former ones. */
function together(before: Applied, after: Applied): Applied {
  return {
    routes: [...new Set([...before.routes, ...after.routes])],
    interfaces: [...new Set([...before.interfaces, ...after.interfaces])],
    tunnels: { ...after.tunnels, ...before.tunnels },
    ...((before.isOvs === true || after.isOvs === true) && { isOvs: true }),
  };
}

async function readApplied({ host, directory }: BridgeParts): Promise<Applied> {
  const text = await readIfPresent(host, join(directory, 'applied.json'));
  return text === undefined ? NOTHING : (JSON.parse(text) as Applied);
}

function noteApplied({ host, directory }: BridgeParts, applied: Applied): Promise<void> {
  return host.writeFile(join(directory, 'applied.json'), JSON.stringify(applied), { mode: 0o600 });
}
