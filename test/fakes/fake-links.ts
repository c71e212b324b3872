// Network interfaces in memory: kept in step with /sys/class/net of the fake host's files, changes recorded as lines.
import { KernelError } from '#src/host/kernel.ts';
import type { GivenLink, Link, LinkAddress, Links, LinkSettings, NewLink, Route, SeenRoute } from '#src/host/links.ts';

export class FakeLinks implements Links {
  readonly #calls: string[];
  readonly #files: Map<string, string | null>;
  readonly #links = new Map<string, Link>();
  #next = 2;

  constructor(calls: string[], files: Map<string, string | null>) {
    this.#calls = calls;
    this.#files = files;
  }

  /** An interface that is there already; not recorded. */
  put(name: string, settings: Partial<Omit<Link, 'name' | 'index'>> = {}): Link {
    const link = {
      index: this.#next++,
      name,
      kind: '',
      up: true,
      mtu: 1500,
      hwaddr: '00:11:22:33:44:55',
      ...settings,
    };
    this.#links.set(name, link);
    this.#files.set(`/sys/class/net/${name}`, null);
    return link;
  }

  /** It is gone, as with its namespace; not recorded. */
  drop(name: string): void {
    this.#links.delete(name);
    this.#files.delete(`/sys/class/net/${name}`);
  }

  async list(): Promise<readonly Link[]> {
    return [...this.#links.values()];
  }

  async find(name: string): Promise<Link | undefined> {
    return this.#links.get(name);
  }

  async create(link: NewLink): Promise<void> {
    this.#calls.push(`link create ${JSON.stringify(link)}`);
    if (this.#links.has(link.name)) throw new KernelError('netlink', 'EEXIST');
    const { name, kind, mtu = 1500, hwaddr = '02:00:00:00:00:01', up = false } = link;
    const master = link.master === undefined ? undefined : this.#get(link.master).index;
    this.put(name, { kind, mtu, hwaddr, up, ...(master !== undefined && { master }) });
    if (link.kind === 'veth') this.put(link.peer.name, { kind, mtu, up: false });
  }

  async change(name: string, settings: LinkSettings & { readonly name?: string }): Promise<void> {
    this.#calls.push(`link change ${name} ${JSON.stringify(settings)}`);
    const { index: _index, ...old } = this.#get(name);
    const { master, name: newName = name, ...kept } = settings;
    if (newName !== name) this.drop(name);
    const joined = typeof master === 'string' ? { master: this.#get(master).index } : {};
    this.put(newName, { ...old, ...kept, ...joined });
  }

  async remove(name: string): Promise<void> {
    if (!this.#links.has(name)) return;
    this.#calls.push(`link remove ${name}`);
    this.drop(name);
  }

  async give(link: GivenLink, pid: number): Promise<void> {
    this.#calls.push(`link give ${JSON.stringify(link)} ${pid}`);
    this.#get(link.link);
    this.drop(link.link);
  }

  async takeBack(link: Pick<GivenLink, 'link' | 'name'>, pid: number): Promise<void> {
    this.#calls.push(`link take back ${JSON.stringify(link)} ${pid}`);
    this.put(link.link);
  }

  async addresses(): Promise<readonly LinkAddress[]> {
    return [];
  }

  async addAddress(name: string, address: string): Promise<void> {
    this.#calls.push(`address add ${name} ${address}`);
  }

  async removeAddress(name: string, address: string): Promise<void> {
    this.#calls.push(`address remove ${name} ${address}`);
  }

  async routes(): Promise<readonly SeenRoute[]> {
    return [];
  }

  async addRoute(route: Route): Promise<void> {
    this.#calls.push(`route add ${JSON.stringify(route)}`);
  }

  async removeRoute(route: Route): Promise<void> {
    this.#calls.push(`route remove ${JSON.stringify(route)}`);
  }

  async addProxy(name: string, address: string): Promise<void> {
    this.#calls.push(`proxy add ${name} ${address}`);
  }

  async removeProxy(name: string, address: string): Promise<void> {
    this.#calls.push(`proxy remove ${name} ${address}`);
  }

  #get(name: string): Link {
    const link = this.#links.get(name);
    if (!link) throw new KernelError('netlink', 'ENODEV');
    return link;
  }
}
