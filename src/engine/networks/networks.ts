// Managed networks: made at the engine's start, changed and deleted; and the interfaces of the host beside them.
import { createHash } from 'node:crypto';
import type { ManagedNetwork, NetworkDriver, NetworkModule } from '#drivers/network/driver.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import { repeatSlowing } from '#src/lib/repeat.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { Service } from '#src/lib/service.ts';
import { withoutEmpty } from '../config-maps.ts';
import type { EngineContext } from '../context.ts';
import { DEFAULT_PROJECT } from '../db/projects.ts';
import type { NetworkRecord } from '../db/records.ts';
import { projectFor } from '../projects/project-for.ts';
import { projectSuffix } from '../projects/project-url.ts';
import { networkVisible } from '../projects/restrictions.ts';
import type { ConfigMap } from '../types.ts';
import { HostInterfaces } from './host-interfaces.ts';
import { networkLeases, type ShownLease } from './leases.ts';
import { networkDriverOf, networkDriversFor } from './network-drivers.ts';
import { checkNewNetwork } from './new-network.ts';
import { type NetworkKey, networkUsedBy } from './used-by.ts';

export type NetworksContext = Pick<EngineContext, 'database' | 'events' | 'host' | 'locks' | 'log' | 'paths'>;

export interface NetworksOptions {
  readonly context: NetworksContext;
  readonly modules: Readonly<Record<string, NetworkModule>>;
  /** Of the server's certificate: MAC addresses of bridges differ from host to host. */
  readonly fingerprint: string;
}

export interface NewNetwork {
  readonly project: string;
  readonly name: string;
  readonly type: string;
  readonly description: string;
  readonly config: ConfigMap;
}

export type NetworkContent = Pick<NetworkRecord, 'description' | 'config'>;

/** After the network is up: what others have to put on it. */
export type NetworkFollower = (network: NetworkRecord) => Promise<void>;

const WARNING = 'Network unavailable';
const TROUBLE = 'Forwarded traffic is dropped';
const UNDO_MS = 60_000;
/** Pauses before a network that could not be brought up is tried again: interfaces often come seconds after the daemon. */
const RETRY = { firstMs: 5000, mostMs: 60_000 } as const;

export class Networks implements Service {
  readonly name = 'networks';
  readonly interfaces: HostInterfaces;
  readonly drivers: Readonly<Record<string, NetworkDriver>>;
  readonly #options: NetworksOptions;
  readonly #followers: NetworkFollower[] = [];
  readonly #down = new Set<number>();
  readonly #stopping = new AbortController();
  #endRetries: (() => void) | undefined;

  constructor(options: NetworksOptions) {
    this.#options = options;
    this.interfaces = new HostInterfaces(options.context);
    this.drivers = networkDriversFor(options);
  }

  follow(follower: NetworkFollower): void {
    this.#followers.push(follower);
  }

  /** Brings all networks up. One that cannot be is a warning, never a reason not to serve the others. */
  async start(signal: AbortSignal): Promise<void> {
    await this.#settle(signal);
    for (const network of this.#rows.list()) await this.#bringUp(network, signal);
    this.#endRetries = repeatSlowing(() => this.#bringUpMissing(), RETRY);
  }

  /** Networks stay as they are: containers use them. */
  async stop(): Promise<void> {
    this.#endRetries?.();
    this.#stopping.abort(new AppError('unavailable', 'shutting down'));
  }

  get #rows() {
    return this.#options.context.database.networks;
  }

  /** A daemon was killed while it made or removed one: it goes. */
  async #settle(signal: AbortSignal): Promise<void> {
    for (const network of this.#rows.pending()) {
      try {
        await this.driver(network).down(network.name, signal);
        this.#rows.delete(network.id);
      } catch (error) {
        this.#options.context.log.warn('a network that was being made or removed is still there', {
          network: network.name,
          error,
        });
      }
    }
  }

  async #bringUp(network: NetworkRecord, signal: AbortSignal): Promise<void> {
    const { database, log } = this.#options.context;
    const url = networkUrl(network);
    try {
      await this.#apply(network, signal);
      this.#down.delete(network.id);
      database.warnings.resolve(WARNING, url);
    } catch (error) {
      if (!this.#down.has(network.id)) {
        const warning = { type: WARNING, entityUrl: url, message: messageOf(error), severity: 'high' } as const;
        database.warnings.raise({ ...warning, project: network.project });
        log.warn('a network is not available', { network: network.name, error });
      }
      this.#down.add(network.id);
    }
  }

  async #bringUpMissing(): Promise<void> {
    const { signal } = this.#stopping;
    for (const { id, project, name } of this.#rows.list().filter((network) => this.#down.has(network.id))) {
      const work = async (): Promise<void> => {
        const network = this.#rows.find(project, name);
        if (network?.id === id && this.#down.has(id) && !signal.aborted) await this.#bringUp(network, signal);
      };
      await this.#locked(name, signal, work).catch((error: unknown) => {
        if (!signal.aborted) throw error; // else the daemon ends while it waits for the lock
      });
    }
  }

  #locked<T>(name: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    return this.#options.context.locks.run(`network/${name}`, work, signal);
  }

  isUp({ id }: NetworkRecord): boolean {
    return !this.#down.has(id);
  }

  /** Makes the host as the record says. */
  async #apply(network: NetworkRecord, signal: AbortSignal): Promise<void> {
    const driver = this.driver(network);
    const managed = this.managed(network);
    await driver.up(managed, signal);
    await this.#lookForTrouble(network, () => driver.trouble?.(managed, signal));
    for (const follower of this.#followers) await follower(network);
  }

  /** What others do to the host is worth a warning, and never a reason to fail. */
  async #lookForTrouble(network: NetworkRecord, look: () => Promise<string | undefined> | undefined): Promise<void> {
    const { database, log } = this.#options.context;
    const url = networkUrl(network);
    try {
      const message = await look();
      if (message === undefined) return database.warnings.resolve(TROUBLE, url);
      database.warnings.raise({
        type: TROUBLE,
        entityUrl: url,
        message,
        severity: 'moderate',
        project: network.project,
      });
    } catch (error) {
      log.warn('the firewall of the host cannot be read', { network: network.name, error });
    }
  }

  managed({ id, name, config }: NetworkRecord): ManagedNetwork {
    const forwards = this.#options.context.database.networkForwards.list(id);
    return { name, config, hwaddr: hwaddrOf(this.#options.fingerprint, id), forwards };
  }

  driver({ type }: Pick<NetworkRecord, 'type'>): NetworkDriver {
    return networkDriverOf(this.drivers, type);
  }

  /** Those that a project sees. */
  list(project: string): readonly NetworkRecord[] {
    const networks = this.#rows.list(this.holder(project));
    return networks.filter(({ name }) => this.isSeen(project, name, { isManaged: true }));
  }

  /** Of all projects. */
  listAll(): readonly NetworkRecord[] {
    return this.#rows.list();
  }

  find(project: string, name: string): NetworkRecord | undefined {
    return this.#rows.find(this.holder(project), name);
  }

  /** AppError 'not_found' with LXD's text. */
  get(project: string, name: string): NetworkRecord {
    const network = this.find(project, name);
    if (!network) throw new AppError('not_found', 'Failed loading network: Network not found');
    return network;
  }

  /** As `get`, for a client of the project: what its restrictions hide is not there. */
  seen(project: string, name: string): NetworkRecord {
    const network = this.get(project, name);
    if (!this.isSeen(project, name, { isManaged: true })) throw new AppError('not_found', 'Network not found');
    return network;
  }

  /** Whether the restrictions of a project let its clients see a network, or an interface of the host. */
  isSeen(project: string, name: string, { isManaged }: { readonly isManaged: boolean }): boolean {
    return networkVisible(this.#options.context.database.projects.get(project).config, name, isManaged);
  }

  holder(project: string): string {
    return projectFor(this.#options.context.database, 'networks', project);
  }

  usedBy(key: NetworkKey): readonly string[] {
    return networkUsedBy(this.#options.context.database, key);
  }

  /** Of the instances of a project; of the network's own, its gateways as well. AppError 'not_found' with LXD's text. */
  leases(project: string, name: string): Promise<readonly ShownLease[]> {
    const network = this.seen(project, name);
    return networkLeases(this.#options.context.database, { network, project }, this.driver(network).hosts);
  }

  /** For used_by of projects. */
  urlsOf(project: string): readonly string[] {
    return this.#rows.list(project).map(networkUrl);
  }

  /** AppError with LXD's text; after a failure nothing of it is left. */
  async create(wanted: NewNetwork, signal: AbortSignal): Promise<void> {
    const { context } = this.#options;
    if (!this.isSeen(wanted.project, wanted.name, { isManaged: true })) {
      throw new AppError('forbidden', 'Network not allowed in project');
    }
    const project = this.holder(wanted.project);
    const driver = checkNewNetwork({ drivers: this.drivers, database: context.database }, { ...wanted, project });
    await this.#locked(wanted.name, signal, async () => {
      if (this.#rows.find(project, wanted.name)) throw new AppError('invalid', 'The network already exists');
      await driver.checkNew(wanted.name, wanted.config);
      const config = await driver.complete(withoutEmpty(wanted.config), { isNew: true }, signal);
      driver.validate(wanted.name, config);
      await using revert = new Reverter(context.log);
      const { name, description } = wanted;
      const network = this.#rows.create({
        project,
        name,
        description,
        config,
        type: driver.info.type,
        pending: 'create',
      });
      revert.add('record', () => this.#rows.delete(network.id));
      revert.add('network', () => driver.down(name, AbortSignal.timeout(UNDO_MS)));
      await this.#apply(network, signal);
      this.#rows.setPending(network.id, '');
      revert.commit();
      this.#publish('network-created', network);
    });
  }

  /** AppError 'invalid' with LXD's text; after a failure the network is as it was. */
  async update(key: NetworkKey, content: NetworkContent, signal: AbortSignal): Promise<void> {
    const { log } = this.#options.context;
    await this.#locked(key.name, signal, async () => {
      const network = this.get(key.project, key.name);
      const driver = this.driver(network);
      driver.validate(network.name, content.config);
      const config = await driver.complete(withoutEmpty(content.config), { isNew: false }, signal);
      await using revert = new Reverter(log);
      const next = { ...network, ...content, config };
      if (!isSame(config, network.config)) {
        revert.add('network', () => this.#apply(network, AbortSignal.timeout(UNDO_MS)));
        await this.#apply(next, signal);
      }
      this.#rows.update(network.id, next);
      revert.commit();
      this.#settled(network);
      this.#publish('network-updated', network);
    });
  }

  #settled(network: NetworkRecord): void {
    if (!this.#down.delete(network.id)) return;
    this.#options.context.database.warnings.resolve(WARNING, networkUrl(network));
  }

  /** Applies what belongs to the network and lies elsewhere: its forwards. `change` writes it down, `undo` takes that back. */
  async amend(key: NetworkKey, change: (network: NetworkRecord) => () => void, signal: AbortSignal): Promise<void> {
    await this.#locked(key.name, signal, async () => {
      const network = this.get(key.project, key.name);
      await using revert = new Reverter(this.#options.context.log);
      revert.add('network', () => this.#apply(network, AbortSignal.timeout(UNDO_MS)));
      revert.add('record', change(network));
      await this.#apply(network, signal);
      revert.commit();
    });
  }

  /** Nobody uses it: it goes down and comes up under the new name. */
  async rename(key: NetworkKey, newName: string, signal: AbortSignal): Promise<void> {
    const { log } = this.#options.context;
    await this.#locked(key.name, signal, async () => {
      const network = this.get(key.project, key.name);
      if (newName === '') throw new AppError('invalid', 'New network name not provided');
      const driver = this.driver(network);
      driver.validate(newName, network.config);
      if (this.#rows.find(network.project, newName)) {
        throw new AppError('conflict', `Network "${newName}" already exists`);
      }
      if (this.usedBy(network).length > 0) throw new AppError('invalid', 'Network is currently in use');
      await driver.checkNew(newName, network.config);
      await using revert = new Reverter(log);
      revert.add('network', () => this.#apply(network, AbortSignal.timeout(UNDO_MS)));
      await driver.down(network.name, signal);
      revert.add('record', () => this.#rows.rename(network.id, network.name));
      this.#rows.rename(network.id, newName);
      const renamed = { ...network, name: newName };
      revert.add('renamed network', () => driver.down(newName, AbortSignal.timeout(UNDO_MS)));
      await this.#apply(renamed, signal);
      revert.commit();
      this.#publish('network-renamed', renamed, { old_name: network.name });
    });
  }

  /** AppError 'invalid' while an instance or profile uses it. */
  async delete(key: NetworkKey, signal: AbortSignal): Promise<void> {
    await this.#locked(key.name, signal, async () => {
      const network = this.get(key.project, key.name);
      if (this.usedBy(network).length > 0) throw new AppError('invalid', 'The network is currently in use');
      // From here on nobody can use it any more; after a failure it is there again.
      this.#rows.setPending(network.id, 'delete');
      await using revert = new Reverter(this.#options.context.log);
      revert.add('network', () => this.#apply(network, AbortSignal.timeout(UNDO_MS)));
      revert.add('record', () => this.#rows.setPending(network.id, ''));
      await this.driver(network).down(network.name, signal);
      this.#rows.delete(network.id);
      revert.commit();
      this.#settled(network);
      this.#publish('network-deleted', network);
    });
  }

  #publish(action: string, { project, name }: NetworkRecord, details?: Readonly<Record<string, unknown>>): void {
    const source = `/1.0/networks/${encodeURIComponent(name)}`;
    this.#options.context.events.lifecycle({ action, source, project, ...(details && { context: details }) });
  }
}

export function networkUrl({ project, name }: NetworkKey): string {
  return `/1.0/networks/${encodeURIComponent(name)}${projectSuffix(project)}`;
}

/** Networks of the host's own belong to the default project. */
export const INTERFACE_PROJECT = DEFAULT_PROJECT;

/** With LXD's prefix. */
function hwaddrOf(fingerprint: string, id: number): string {
  const digest = createHash('sha256').update(`${fingerprint}/${id}`).digest('hex');
  return `00:16:3e:${[0, 2, 4].map((at) => digest.slice(at, at + 2)).join(':')}`;
}

function isSame(left: ConfigMap, right: ConfigMap): boolean {
  const keys = new Set([...Object.keys(left), ...Object.keys(right)]);
  return [...keys].every((key) => left[key] === right[key]);
}
