// Forwards: addresses of the host whose traffic goes into a managed network.
import type { NetworkForward } from '#drivers/network/driver.ts';
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import { ipText, parseIp } from '#src/lib/ip.ts';
import type { NetworkRecord } from '../db/records.ts';
import { checkForward, type WantedForward } from './check-forward.ts';
import type { Networks, NetworksContext } from './networks.ts';
import type { NetworkKey } from './used-by.ts';

type Context = Pick<NetworksContext, 'database' | 'events'>;
type Content = Omit<WantedForward, 'listenAddress'>;

/** Every method: AppError with LXD's text for an absent network, or one that has no forwards. */
export class NetworkForwards {
  readonly #context: Context;
  readonly #networks: Networks;

  constructor(context: Context, networks: Networks) {
    this.#context = context;
    this.#networks = networks;
  }

  list(key: NetworkKey): readonly NetworkForward[] {
    return this.#rows.list(this.#network(key).id);
  }

  get(key: NetworkKey, listenAddress: string): NetworkForward {
    const found = this.#rows.find(this.#network(key).id, shortest(listenAddress));
    if (!found) throw new AppError('not_found', 'Network forward not found');
    return found;
  }

  async create(key: NetworkKey, wanted: WantedForward, signal: AbortSignal): Promise<NetworkForward> {
    const network = this.#network(key);
    return failing('creating', async () => {
      const forward = checkForward(network.config, { ...wanted, listenAddress: shortest(wanted.listenAddress) });
      await this.#networks.amend(
        network,
        ({ id }) => {
          if (this.#rows.find(id, forward.listenAddress)) {
            throw new AppError('conflict', 'A forward for that listen address already exists');
          }
          this.#rows.put(id, forward);
          return () => this.#rows.delete(id, forward.listenAddress);
        },
        signal,
      );
      this.#publish('network-forward-created', network, forward);
      return forward;
    });
  }

  async update(key: NetworkKey, former: NetworkForward, content: Content, signal: AbortSignal): Promise<void> {
    const network = this.#network(key);
    await failing('updating', async () => {
      const { listenAddress } = former;
      const forward = checkForward(network.config, { ...content, listenAddress });
      await this.#networks.amend(
        network,
        ({ id }) => {
          const before = this.get(key, listenAddress);
          this.#rows.put(id, forward);
          return () => this.#rows.put(id, before);
        },
        signal,
      );
      this.#publish('network-forward-updated', network, forward);
    });
  }

  async delete(key: NetworkKey, listenAddress: string, signal: AbortSignal): Promise<void> {
    const network = this.#network(key);
    await failing('deleting', async () => {
      const forward = this.get(key, listenAddress);
      await this.#networks.amend(
        network,
        ({ id }) => {
          this.#rows.delete(id, forward.listenAddress);
          return () => this.#rows.put(id, forward);
        },
        signal,
      );
      this.#publish('network-forward-deleted', network, forward);
    });
  }

  get #rows() {
    return this.#context.database.networkForwards;
  }

  #network({ project, name }: NetworkKey): NetworkRecord {
    const network = this.#networks.seen(project, name);
    if (this.#networks.driver(network).info.forwards) return network;
    throw new AppError('invalid', `Network driver "${network.type}" does not support forwards`);
  }

  #publish(action: string, network: NetworkRecord, { listenAddress }: NetworkForward): void {
    const source = `/1.0/networks/${encodeURIComponent(network.name)}/forwards/${listenAddress}`;
    this.#context.events.lifecycle({ action, source, project: network.project });
  }
}

function shortest(address: string): string {
  const parsed = parseIp(address);
  return parsed ? ipText(parsed) : address;
}

async function failing<T>(doing: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw new AppError(kindOf(cause), `Failed ${doing} forward: ${messageOf(cause)}`, { cause });
  }
}
