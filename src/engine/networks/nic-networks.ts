// Nics of instances on managed networks: what the network decides for them, and what DHCP and DNS are told of them.
import { AppError } from '#src/lib/errors.ts';
import type { NetworkAccess, NetworkedInstance } from '../context.ts';
import type { NetworkRecord } from '../db/records.ts';
import { expander } from '../instances/expansion.ts';
import type { ConfigMap, DeviceMap } from '../types.ts';
import { dnsName, entryLine, type HostEntry, HostEntries, type Naming, ownerPrefix } from './host-entries.ts';
import { checkNicAddresses } from './nic-addresses.ts';
import type { Networks, NetworksContext } from './networks.ts';
import { networkUsers } from './used-by.ts';

const naming = ({ config }: NetworkRecord): Naming => ({ named: config['dns.mode'] !== 'none' });

export class NicNetworks implements NetworkAccess {
  readonly #context: NetworksContext;
  readonly #networks: Networks;
  readonly #entries = new HostEntries();

  constructor(context: NetworksContext, networks: Networks) {
    this.#context = context;
    this.#networks = networks;
    networks.follow((network) => this.#publishAll(network));
  }

  expand(project: string, device: ConfigMap): ConfigMap {
    if (device['type'] !== 'nic') return device;
    const network = this.#networkOf(project, device);
    const { network: named = '' } = device;
    if (!network) return named === '' ? device : { ...device, nictype: 'bridged', parent: named };
    const { info } = this.#networks.driver(network);
    const given = info.nicOptions.flatMap((option) => {
      const value = network.config[option] ?? '';
      return value === '' ? [] : [[option, value] as const];
    });
    const parent = info.isInterface ? network.name : (network.config['parent'] ?? '');
    // Where it is on the network only by its parent it says the rest itself.
    const options = named === '' ? {} : Object.fromEntries(given);
    return { ...device, ...options, network: network.name, nictype: info.nictype, parent };
  }

  check(project: string, device: ConfigMap): void {
    if (device['type'] !== 'nic') return;
    const { network: name = '' } = device;
    if (name !== '') this.#checkNamed(project, name, device);
    const network = this.#networkOf(project, device);
    if (network) checkNicAddresses(network, device);
  }

  #checkNamed(project: string, name: string, device: ConfigMap): void {
    const network = this.#networks.find(project, name);
    if (!network) {
      throw new AppError('not_found', `Failed to load network "${name}" for project "${project}": Network not found`);
    }
    const { nicOptions } = this.#networks.driver(network).info;
    for (const option of ['nictype', 'parent', ...nicOptions]) {
      if ((device[option] ?? '') === '') continue;
      throw new AppError('invalid', `Cannot use "${option}" property in conjunction with "network" property`);
    }
  }

  /** The managed network that a nic is on, by its name or as its parent. */
  #networkOf(project: string, device: ConfigMap): NetworkRecord | undefined {
    const { network = '', nictype, parent = '' } = device;
    if (network !== '') return this.#networks.find(project, network);
    const found = nictype === 'bridged' && parent !== '' ? this.#networks.find(project, parent) : undefined;
    return found && this.#networks.driver(found).info.isInterface ? found : undefined;
  }

  checkStart(instance: NetworkedInstance): void {
    this.#checkConflicts(instance, 'start', () => true);
  }

  checkChange(instance: NetworkedInstance, changed: DeviceMap): void {
    this.#checkConflicts(instance, 'add', (device) => Object.hasOwn(changed, device));
  }

  #checkConflicts(instance: NetworkedInstance, doing: string, concerns: (device: string) => boolean): void {
    for (const { network, entry } of this.#entriesOf(instance)) {
      const conflict = concerns(entry.device)
        ? this.#entries.conflict(network.name, entry, naming(network))
        : undefined;
      if (conflict === undefined) continue;
      throw new AppError('conflict', `Failed ${doing} validation for device "${entry.device}": ${conflict}`);
    }
  }

  async publish(instance: NetworkedInstance): Promise<void> {
    const networks = this.#networks.listAll();
    if (networks.length === 0) return;
    const wanted = this.#entriesOf(instance);
    for (const network of networks) {
      const own = wanted.filter((one) => one.network.id === network.id).map(({ entry }) => entry);
      const before = this.#entries.files(network.name, ownerPrefix(instance)).map(([, entry]) => entry);
      if (!this.#entries.replace(network.name, instance, own, naming(network))) continue;
      await this.#write(network, ownerPrefix(instance));
      await this.#release(
        network,
        before.filter(({ hwaddr }) => own.every((entry) => entry.hwaddr !== hwaddr)),
      );
    }
  }

  /** What does not come back so comes back when it expires: no reason to fail. */
  async #release(network: NetworkRecord, entries: readonly HostEntry[]): Promise<void> {
    if (entries.length === 0) return;
    const gone = entries.map((entry) => ({ hwaddr: entry.hwaddr, hostname: dnsName(entry) }));
    try {
      await this.#networks.driver(network).hosts?.release(network, gone);
    } catch (error) {
      this.#context.log.warn('leases were not given back', { network: network.name, error });
    }
  }

  withdraw(key: Pick<NetworkedInstance, 'project' | 'name'>): Promise<void> {
    return this.publish({ ...key, config: {}, devices: {} });
  }

  #entriesOf(instance: NetworkedInstance): readonly { readonly network: NetworkRecord; readonly entry: HostEntry }[] {
    const { project, name, config, devices } = instance;
    return Object.entries(devices).flatMap(([device, options]) => {
      const network = options['type'] === 'nic' ? this.#networkOf(project, options) : undefined;
      if (!network) return [];
      const address = (key: string): string => (options[key] === 'none' ? '' : (options[key] ?? ''));
      const hwaddr = (options['hwaddr'] ?? config[`volatile.${device}.hwaddr`] ?? '').toLowerCase();
      const { vlan = '' } = options;
      const addresses = { ipv4: address('ipv4.address'), ipv6: address('ipv6.address') };
      return [{ network, entry: { project, name, device, vlan, hwaddr, ...addresses } }];
    });
  }

  /** When the network has come up: whatever its files say, they are made to say what the database says. */
  async #publishAll(network: NetworkRecord): Promise<void> {
    const { database } = this.#context;
    this.#entries.forget(network.name);
    const expand = expander(database);
    for (const record of networkUsers(database, network).instances) {
      const instance = { ...record, devices: expand(record).devices };
      const own = this.#entriesOf(instance).filter((one) => one.network.id === network.id);
      this.#entries.replace(
        network.name,
        instance,
        own.map(({ entry }) => entry),
        naming(network),
      );
    }
    await this.#write(network, '');
  }

  /** The files of one instance, or (empty prefix) of all. */
  async #write(network: NetworkRecord, prefix: string): Promise<void> {
    const { hosts } = this.#networks.driver(network);
    // One after the other: each makes the files what is known when its turn comes.
    await this.#context.locks.run(`dhcp-hosts/${network.name}`, async () => {
      const named = ['', 'managed'].includes(network.config['dns.mode'] ?? '');
      const files = this.#entries.files(network.name, prefix).flatMap(([file, entry]) => {
        const line = entryLine(entry, named);
        return line === undefined ? [] : [[file, line] as const];
      });
      await hosts?.set(network.name, new Map(files), (file) => file.startsWith(prefix));
    });
  }
}
