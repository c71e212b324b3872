// Nics of instances on managed networks: what the network decides for them, and what DHCP and DNS are told of them.
import { AppError } from '#src/lib/errors.ts';
import type { NetworkLease } from '#drivers/network/driver.ts';
import type { NetworkAccess, NetworkedInstance } from '../context.ts';
import type { NetworkRecord } from '../db/records.ts';
import { expander } from '../instances/expansion.ts';
import type { ConfigMap, DeviceMap } from '../types.ts';
import { allocate, allocates } from './allocations.ts';
import {
  addressesInLine,
  dnsName,
  entryLine,
  fileOf,
  type HostEntry,
  HostEntries,
  type Naming,
  ownerPrefix,
} from './host-entries.ts';
import { checkNicAddresses } from './nic-addresses.ts';
import type { Networks, NetworksContext } from './networks.ts';
import { networkUsers } from './used-by.ts';

const naming = ({ config }: NetworkRecord): Naming => ({ named: config['dns.mode'] !== 'none' });

interface NetworkNic {
  readonly network: NetworkRecord;
  readonly entry: HostEntry;
  /** Families in which a filter needs an address that the nic does not name. */
  readonly chooses: readonly (4 | 6)[];
}

const choosesAddress = ({ chooses }: NetworkNic): boolean => chooses.length > 0;
const isTrue = (value: string | undefined): boolean => /^(true|1|yes|on)$/iu.test(value ?? '');

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
      const nics = wanted.filter((one) => one.network.id === network.id);
      const leases = await this.#leases(network, nics);
      // From here to replace() nothing waits: no two get the same address.
      const before = this.#entries.files(network.name, ownerPrefix(instance)).map(([, entry]) => entry);
      const own = nics.map((nic) => this.#withAddresses(nic, new Map(this.#files(network)), leases));
      const isNew = this.#entries.replace(network.name, instance, own, naming(network));
      if (!isNew && !nics.some(choosesAddress)) continue;
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

  chosenAddresses(instance: NetworkedInstance): DeviceMap {
    const nics = this.#entriesOf(instance).filter(choosesAddress);
    return Object.fromEntries(
      nics.map(({ network, entry, chooses }) => {
        const { ipv4 = '', ipv6 = '' } = new Map(this.#files(network)).get(fileOf(entry)) ?? {};
        const found = [[4, ipv4] as const, [6, ipv6] as const]
          .filter(([family]) => chooses.includes(family))
          .map(([family, address]) => [family, allocates(network.config, family) ? address : 'none'] as const);
        return [entry.device, Object.fromEntries(found.map(([family, address]) => [`ipv${family}.address`, address]))];
      }),
    );
  }

  #files(network: NetworkRecord): readonly (readonly [string, HostEntry])[] {
    return this.#entries.files(network.name, '');
  }

  /** None are read where none are needed. */
  async #leases(network: NetworkRecord, nics: readonly NetworkNic[]): Promise<readonly NetworkLease[]> {
    return nics.some(choosesAddress) ? ((await this.#networks.driver(network).hosts?.leases(network.name)) ?? []) : [];
  }

  #withAddresses(
    { network: { config }, entry, chooses }: NetworkNic,
    known: ReadonlyMap<string, Pick<HostEntry, 'hwaddr' | 'ipv4' | 'ipv6'>>,
    leases: readonly NetworkLease[],
  ): HostEntry {
    const file = fileOf(entry);
    const others = [...known].filter(([name]) => name !== file);
    const fixed = new Set(others.flatMap(([, { ipv4, ipv6 }]) => [ipv4, ipv6]));
    const before = known.get(file);
    const { hwaddr } = entry;
    return chooses.reduce((all, family) => {
      const previous = before?.hwaddr === hwaddr ? before[`ipv${family}`] : '';
      const request = { config, family, hwaddr, hostname: dnsName(entry), previous, fixed, leases };
      return { ...all, [`ipv${family}`]: (hwaddr === '' ? undefined : allocate(request)) ?? '' };
    }, entry);
  }

  #entriesOf(instance: NetworkedInstance): readonly NetworkNic[] {
    const { project, name, config, devices } = instance;
    return Object.entries(devices).flatMap(([device, options]) => {
      const network = options['type'] === 'nic' ? this.#networkOf(project, options) : undefined;
      if (!network) return [];
      const address = (key: string): string => (options[key] === 'none' ? '' : (options[key] ?? ''));
      const { hwaddr: said = '' } = options; // empty: none is said
      const hwaddr = (said === '' ? (config[`volatile.${device}.hwaddr`] ?? '') : said).toLowerCase();
      const { vlan = '' } = options;
      const addresses = { ipv4: address('ipv4.address'), ipv6: address('ipv6.address') };
      const chooses = ([4, 6] as const).filter((family) => {
        return isTrue(options[`security.ipv${family}_filtering`]) && (options[`ipv${family}.address`] ?? '') === '';
      });
      return [{ network, chooses, entry: { project, name, device, vlan, hwaddr, ...addresses } }];
    });
  }

  /** When the network has come up: whatever its files say, they are made to say what the database says. */
  async #publishAll(network: NetworkRecord): Promise<void> {
    const { database } = this.#context;
    const before = await this.#knownBefore(network);
    const expand = expander(database);
    const leases = (await this.#networks.driver(network).hosts?.leases(network.name)) ?? [];
    this.#entries.forget(network.name);
    for (const record of networkUsers(database, network).instances) {
      const instance = { ...record, devices: expand(record).devices };
      const nics = this.#entriesOf(instance).filter((one) => one.network.id === network.id);
      const own = nics.map((nic) => this.#withAddresses(nic, new Map([...before, ...this.#files(network)]), leases));
      this.#entries.replace(network.name, instance, own, naming(network));
    }
    await this.#write(network, '');
  }

  /** After a start of the daemon only the files know what was chosen. */
  async #knownBefore(
    network: NetworkRecord,
  ): Promise<ReadonlyMap<string, Pick<HostEntry, 'hwaddr' | 'ipv4' | 'ipv6'>>> {
    const known = this.#files(network);
    if (known.length > 0) return new Map(known);
    const lines = (await this.#networks.driver(network).hosts?.lines(network.name)) ?? new Map<string, string>();
    return new Map([...lines].map(([file, line]) => [file, addressesInLine(line)]));
  }

  /** The files of one instance, or (empty prefix) of all. */
  async #write(network: NetworkRecord, prefix: string): Promise<void> {
    const { hosts } = this.#networks.driver(network);
    // One after the other: each makes the files what is known when its turn comes.
    await this.#context.locks.run(`dhcp-hosts/${network.name}`, async () => {
      const named = ['', 'managed'].includes(network.config['dns.mode'] ?? '');
      const isServed = allocates(network.config, 4) || allocates(network.config, 6);
      const known = isServed ? this.#entries.files(network.name, prefix) : [];
      const files = known.flatMap(([file, entry]) => {
        const line = entryLine(entry, named);
        return line === undefined ? [] : [[file, line] as const];
      });
      await hosts?.set(network.name, new Map(files), (file) => file.startsWith(prefix));
    });
  }
}
