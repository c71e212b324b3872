// A machine on which ip(8) makes the interfaces that VIF drivers look at, and Open vSwitch has a bridge.
import { type FakeCall, FakeHost } from './fake-host.ts';
import { FakeSwitch } from './fake-switch.ts';

export class FakeVifMachine extends FakeHost {
  readonly switch = new FakeSwitch();
  /** Name → the other end; of interfaces that are no pair, the name itself. */
  readonly #others = new Map<string, string>();

  constructor({ ipv6 = true, links = [] }: { ipv6?: boolean; links?: readonly string[] } = {}) {
    super();
    if (ipv6) this.files.set('/proc/sys/net/ipv6/conf/all', null);
    for (const name of ['br-int', ...links]) this.#add(name, name.startsWith('brq'));
    this.on(/^ip -batch/, (call) => this.#batch(call));
    this.on(/^ip link /, ({ argv }) => this.#line(argv.slice(1).join(' ')) ?? '');
    this.on(/^ovs-vsctl /, (call) => this.switch.answer(call));
  }

  linkNames(): readonly string[] {
    return [...this.#others.keys()].toSorted();
  }

  addLink(name: string): void {
    this.#add(name, false);
  }

  removeLink(name: string): void {
    const other = this.#others.get(name);
    for (const end of [name, other]) {
      if (end === undefined) continue;
      this.#others.delete(end);
      this.files.delete(`/sys/class/net/${end}`);
      this.files.delete(`/sys/class/net/${end}/bridge`);
    }
  }

  /** Into a container: the other end stays, and knows nothing of it. */
  give(name: string): void {
    const other = this.#others.get(name) ?? '';
    this.#others.set(other, other);
    this.#others.delete(name);
    this.files.delete(`/sys/class/net/${name}`);
  }

  #add(name: string, isBridge: boolean, other = name): void {
    this.#others.set(name, other);
    this.files.set(`/sys/class/net/${name}`, null);
    if (isBridge) this.files.set(`/sys/class/net/${name}/bridge`, null);
    if (this.files.has('/proc/sys/net/ipv6/conf/all')) {
      this.files.set(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, '0');
    }
  }

  #batch({ input }: FakeCall): { readonly exitCode: number; readonly stderr: string } | string {
    for (const line of input.trim().split('\n')) {
      const failure = this.#line(line);
      if (failure) return failure;
    }
    return '';
  }

  #line(line: string): { readonly exitCode: number; readonly stderr: string } | undefined {
    const [, name = ''] = /^link (?:add name|set dev|delete dev) (\S+)/.exec(line) ?? [];
    const isThere = this.#others.has(name);
    if (line.startsWith('link add')) {
      const peer = / peer name (\S+)/.exec(line)?.[1];
      if (isThere || (peer !== undefined && this.#others.has(peer))) {
        return { exitCode: 2, stderr: 'RTNETLINK answers: File exists' };
      }
      this.#add(name, line.includes(' type bridge'), peer);
      if (peer !== undefined) this.#add(peer, false, name);
      return undefined;
    }
    if (!isThere) return { exitCode: 1, stderr: `Cannot find device "${name}"` };
    if (line.startsWith('link delete')) this.removeLink(name);
    return undefined;
  }
}
