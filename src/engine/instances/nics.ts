// The network interfaces of an instance: their names and addresses, and their start and stop by the nic drivers.
import { randomBytes } from 'node:crypto';
import { setChains } from '#drivers/nic/common/firewall.ts';
import type { NicDevice, NicDriver, NicInstance } from '#drivers/nic/driver.ts';
import type { RuntimeNic } from '#drivers/runtime/driver.ts';
import type { Host } from '#src/host/host.ts';
import { type NetworkInterface, readNamespaceInterfaces } from '#src/host/netlink.ts';
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { NetworkAccess } from '../context.ts';
import type { ConfigMap, DeviceMap } from '../types.ts';
import { nicDriverOf } from './config-rules.ts';

const UNDO_LIMIT_MS = 30_000;
/** Keys of volatile.DEVICE.* that live as long as the container. */
const OF_ONE_LIFE = ['host_name', 'last_state.created', 'last_state.hwaddr', 'last_state.mtu', 'lighter.silent'];

/** An instance as its nics see it. */
export interface NicOwner extends NicInstance {
  /** Expanded. */
  readonly devices: DeviceMap;
  /** Local: volatile.* is read from it. */
  readonly config: ConfigMap;
}

/** Stores volatile.* keys of the instance, whole ones; called before anything is made of what they name. */
export type RememberVolatile = (volatile: ConfigMap) => void;

export interface NicParts {
  readonly drivers: Readonly<Record<string, NicDriver>>;
  readonly networks: Pick<NetworkAccess, 'expand' | 'checkStart' | 'chosenAddresses' | 'publish'>;
  readonly host: Host;
  readonly log: Log;
  /** Interfaces in the network namespace of a process. */
  readonly readInterfaces?: (pid: number) => readonly Pick<NetworkInterface, 'name' | 'hwaddr'>[];
}

export class InstanceNics {
  readonly #parts: NicParts;

  constructor(parts: NicParts) {
    this.#parts = parts;
  }

  /** Makes the host ready for all nics, for a runtime that is about to start; what it did is on `revert`. */
  async start(
    owner: NicOwner,
    remember: RememberVolatile,
    revert: Reverter,
    signal: AbortSignal,
  ): Promise<readonly RuntimeNic[]> {
    const complete = this.#complete(owner);
    const known = { ...owner, config: { ...owner.config, ...hwaddrsOf(complete) } };
    this.#parts.networks.checkStart(known);
    await this.#parts.networks.publish(known);
    const planned = await this.#plan(this.#withAddresses(known, complete), remember, signal);
    const nics: RuntimeNic[] = [];
    for (const nic of planned) nics.push(await this.#startOne(nic, revert, signal));
    return nics;
  }

  /** Adds the nic `device` to the running container whose init is `pid`. After a failure nothing of it is left. */
  async plug(owner: NicOwner, device: string, remember: RememberVolatile, running: RunningInit): Promise<void> {
    const { log, host } = this.#parts;
    const { pid, signal } = running;
    await using revert = new Reverter(log);
    const [nic] = await this.#plan(this.#select(owner, device), remember, signal);
    if (!nic) return;
    const made = await this.#startOne(nic, revert, signal);
    const { link, name, hwaddr, mtu } = made;
    const settings = { ...(hwaddr !== undefined && { hwaddr }), ...(mtu !== undefined && { mtu }) };
    await failing(device, 'add', () => host.links.give({ link, name, ...settings }, pid));
    revert.add('interface in the container', () => this.#takeBack(nic, pid));
    for (const words of insideCommands(made)) {
      await host.run(['nsenter', '--target', String(pid), '--net', '--', 'ip', ...words], { signal });
    }
    revert.commit();
  }

  /** Takes the nic `device` out of the running container whose init is `pid`. */
  async unplug(owner: NicOwner, device: string, { pid, signal }: RunningInit): Promise<void> {
    for (const nic of this.#select(owner, device)) {
      await failing(device, 'remove', async () => {
        await this.#takeBack(nic, pid);
        await this.#driver(nic).stop(nic, signal);
      });
    }
  }

  /** Options of a nic that update() changes under a running container. */
  liveOptions(project: string, name: string, device: ConfigMap): readonly string[] {
    return nicDriverOf(name, this.#parts.networks.expand(project, device), this.#parts.drivers).info.liveOptions;
  }

  /** Applies changed live options of the nic `device`. */
  async update(before: NicOwner, after: NicOwner, device: string, signal: AbortSignal): Promise<void> {
    const [old] = this.#select(before, device);
    const [nic] = this.#select(after, device);
    if (!old || !nic) return;
    await failing(device, 'update', async () => {
      requireAddresses(nic);
      await this.#driver(nic).update?.(old, nic, signal);
    });
  }

  /** Every nic with what its network decides. */
  #complete(owner: NicOwner): readonly NicDevice[] {
    const { networks } = this.#parts;
    return completeNics(owner).map((nic) => ({ ...nic, config: networks.expand(owner.project, nic.config) }));
  }

  /** With those that their networks have chosen for them. */
  #withAddresses(owner: NicOwner, nics: readonly NicDevice[]): readonly NicDevice[] {
    const chosen = this.#parts.networks.chosenAddresses(owner);
    return nics.map((nic) => ({ ...nic, config: { ...nic.config, ...chosen[nic.device] } }));
  }

  #select(owner: NicOwner, device: string): readonly NicDevice[] {
    const nics = this.#complete(owner).filter((nic) => nic.device === device);
    const { [device]: options = {} } = owner.devices;
    return this.#withAddresses({ ...owner, devices: { [device]: options } }, nics);
  }

  async #plan(
    nics: readonly NicDevice[],
    remember: RememberVolatile,
    signal: AbortSignal,
  ): Promise<readonly NicDevice[]> {
    const planned: NicDevice[] = [];
    for (const nic of nics) {
      const volatile = await failing(nic.device, 'start', async () => {
        requireAddresses(nic);
        return this.#driver(nic).plan(nic, signal);
      });
      planned.push({ ...nic, volatile: { ...nic.volatile, ...volatile } });
    }
    const keys = planned.flatMap(({ device, volatile }) =>
      Object.entries(volatile).map(([key, value]) => [`volatile.${device}.${key}`, value] as const),
    );
    if (keys.length > 0) remember(Object.fromEntries(keys));
    return planned;
  }

  #startOne(nic: NicDevice, revert: Reverter, signal: AbortSignal): Promise<RuntimeNic> {
    const driver = this.#driver(nic);
    revert.add(`nic ${nic.device}`, () => driver.stop(nic, AbortSignal.timeout(UNDO_LIMIT_MS)));
    return failing(nic.device, 'start', () => driver.start(nic, signal));
  }

  /** An interface whose host end stays on the host goes away with that; only others have to come back. */
  async #takeBack(nic: NicDevice, pid: number): Promise<void> {
    const { host, readInterfaces = readNamespaceInterfaces } = this.#parts;
    const link = nic.volatile['host_name'] ?? '';
    if (link === '' || (await host.links.find(link))) return;
    const hwaddr = (nic.config['hwaddr'] ?? nic.volatile['last_state.hwaddr'] ?? '').toLowerCase();
    const inside = readInterfaces(pid);
    const found = inside.find((one) => one.hwaddr === hwaddr) ?? inside.find(({ name }) => name === nic.config['name']);
    if (found) await host.links.takeBack({ link, name: found.name }, pid);
  }

  /** At the start of the daemon: filters of running instances, which others on the host may have flushed meanwhile. */
  async restoreFilters(owners: readonly NicOwner[], signal: AbortSignal): Promise<void> {
    const started = owners
      .flatMap((owner) => this.#withAddresses(owner, this.#complete(owner)))
      .filter(({ volatile }) => volatile['host_name'] !== undefined);
    await setChains(
      this.#parts.host,
      started.flatMap((nic) => this.#driver(nic).firewall?.(nic) ?? []),
      signal,
    );
  }

  /** After the container is gone. One nic's failure does not keep the others; it is logged. */
  async stop(owner: NicOwner): Promise<void> {
    for (const nic of this.#complete(owner)) {
      try {
        await this.#driver(nic).stop(nic, AbortSignal.timeout(UNDO_LIMIT_MS));
      } catch (error) {
        this.#parts.log.warn('nic did not stop cleanly', { device: nic.device, error });
      }
    }
  }

  #driver({ device, config }: NicDevice): NicDriver {
    return nicDriverOf(device, config, this.#parts.drivers);
  }
}

export interface RunningInit {
  readonly pid: number;
  readonly signal: AbortSignal;
}

async function failing<T>(device: string, what: 'start' | 'add' | 'remove' | 'update', work: () => Promise<T>) {
  try {
    return await work();
  } catch (cause) {
    throw new AppError(kindOf(cause), `Failed to ${what} device "${device}": ${messageOf(cause)}`, { cause });
  }
}

/** Arguments of ip(8): what liblxc does at a start. */
function insideCommands({ name, addresses = [], gateways = [], deviceRoutes = [] }: RuntimeNic) {
  const family = (address: string) => (address.includes(':') ? '-6' : '-4');
  return [
    ...addresses.map((address) => [family(address), 'address', 'add', address, 'dev', name]),
    ...gateways.map((gateway) => [family(gateway), 'route', 'add', gateway, 'dev', name]),
    ...gateways.map((gateway) => [family(gateway), 'route', 'add', 'default', 'via', gateway, 'dev', name]),
    ...deviceRoutes.map((one) => [one === 'ipv6' ? '-6' : '-4', 'route', 'add', 'default', 'dev', name]),
  ];
}

/** AppError 'unavailable' with LXD's text when the network had none left for a nic that is filtered. */
function requireAddresses({ config }: NicDevice): void {
  for (const family of ['ipv4', 'ipv6']) {
    const isFiltered = /^(true|1|yes|on)$/iu.test(config[`security.${family}_filtering`] ?? '');
    if (isFiltered && (config[`${family}.address`] ?? '') === '') {
      throw new AppError('unavailable', 'No available IP could be found');
    }
  }
}

function hwaddrsOf(nics: readonly NicDevice[]): ConfigMap {
  return Object.fromEntries(nics.map(({ device, config }) => [`volatile.${device}.hwaddr`, config['hwaddr'] ?? '']));
}

/** Whether start() has left its notes: there may be something to undo. */
export function hasTraces(config: ConfigMap): boolean {
  return Object.keys(config).some((key) => key.startsWith('volatile.') && key.endsWith('.host_name'));
}

/** The local configuration without what start() added for one life. */
export function withoutLife(config: ConfigMap): ConfigMap {
  const gone = OF_ONE_LIFE.map((key) => `.${key}`);
  return Object.fromEntries(
    Object.entries(config).filter(
      ([key]) => !(key.startsWith('volatile.') && gone.some((suffix) => key.endsWith(suffix))),
    ),
  );
}

/** volatile.DEVICE.hwaddr and .name for nics that have none; {} when nothing is missing. */
export function missingVolatile(devices: DeviceMap, config: ConfigMap): ConfigMap {
  const volatile: Record<string, string> = {};
  for (const nic of completeNics({ project: '', name: '', devices, config })) {
    for (const key of ['hwaddr', 'name'] as const) {
      const whole = `volatile.${nic.device}.${key}`;
      const value = nic.volatile[key];
      if (value !== undefined && config[whole] !== value) volatile[whole] = value;
    }
  }
  return volatile;
}

/** Every nic with a name and (unless it keeps the one that it has) a MAC address, by device name. */
function completeNics({ project, name: instanceName, devices, config }: NicOwner): readonly NicDevice[] {
  const instance = { project, name: instanceName };
  const nics = Object.entries(devices)
    .filter(([, device]) => device['type'] === 'nic')
    .sort(([left], [right]) => (left < right ? -1 : 1))
    .map(([device, options]) => ({ device, options, volatile: volatileOf(device, config) }));
  const names = new Set(nics.map(({ options, volatile }) => options['name'] ?? volatile['name'] ?? ''));
  return nics.map(({ device, options, volatile }) => {
    const name = textOf(options['name']) ?? textOf(volatile['name']) ?? freeName(names);
    names.add(name);
    const hwaddr = textOf(options['hwaddr']) ?? textOf(volatile['hwaddr']) ?? newAddress(options);
    return {
      instance,
      device,
      config: { ...options, name, ...(hwaddr !== undefined && { hwaddr }) },
      volatile: {
        ...volatile,
        ...(textOf(options['name']) === undefined && { name }),
        ...(textOf(options['hwaddr']) === undefined && hwaddr !== undefined && { hwaddr }),
      },
    };
  });
}

function textOf(value: string | undefined): string | undefined {
  return value === '' ? undefined : value;
}

function volatileOf(device: string, config: ConfigMap): Record<string, string> {
  const prefix = `volatile.${device}.`;
  return Object.fromEntries(
    Object.entries(config)
      .filter(([key]) => key.startsWith(prefix))
      .map(([key, value]) => [key.slice(prefix.length), value]),
  );
}

function freeName(taken: ReadonlySet<string>): string {
  for (let index = 0; ; index++) if (!taken.has(`eth${index}`)) return `eth${index}`;
}

/** An interface that moves in keeps its own, and one on top of another has that one's. */
function newAddress(options: ConfigMap): string | undefined {
  if (['physical', 'ipvlan'].includes(options['nictype'] ?? '')) return undefined;
  const [a, b, c] = randomBytes(3);
  return ['00', '16', '3e', ...[a, b, c].map((byte) => (byte ?? 0).toString(16).padStart(2, '0'))].join(':');
}
