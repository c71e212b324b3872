// Open vSwitch's database as ovs-vsctl shows and changes it: each call is one transaction, which happens as a whole or not at all.
import type { FakeCall } from './fake-host.ts';

interface Port {
  readonly bridge: string;
  tag?: number;
  qos?: string;
  mtu?: number;
  readonly externalIds: Map<string, string>;
}

interface State {
  readonly bridges: Map<string, string>;
  readonly ports: Map<string, Port>;
  /** Record → owner. */
  readonly queues: Map<string, string>;
}

class Refusal extends Error {}

export class FakeSwitch {
  #state: State = { bridges: new Map([['br-int', 'system']]), ports: new Map(), queues: new Map() };
  #records = 0;

  get ports(): ReadonlyMap<string, Readonly<Port>> {
    return this.#state.ports;
  }

  /** Name → datapath_type. */
  get bridges(): ReadonlyMap<string, string> {
    return this.#state.bridges;
  }

  get queues(): ReadonlyMap<string, string> {
    return this.#state.queues;
  }

  removePort(name: string): void {
    this.#state.ports.delete(name);
  }

  /** What a run of ovs-vsctl answers. */
  answer({ argv }: FakeCall): { readonly exitCode: number; readonly stdout?: string; readonly stderr?: string } {
    const words = argv.slice(1).filter((word) => !/^--(timeout|db)=|^--no-wait$/.test(word));
    const next = structuredClone(this.#state);
    const ids = new Map<string, string>();
    try {
      const said = split(words).map((command) => this.#execute(next, ids, command));
      this.#state = next;
      return { exitCode: 0, stdout: said.join('') };
    } catch (error) {
      if (error instanceof Refusal) return { exitCode: 1, stderr: `ovs-vsctl: ${error.message}` };
      throw error;
    }
  }

  #execute(state: State, ids: Map<string, string>, words: readonly string[]): string {
    const options = words.filter((word) => word.startsWith('--'));
    const [name = '', ...args] = words.filter((word) => !word.startsWith('--'));
    const [first = '', second = '', ...rest] = args;
    const isLenient = options.includes('--if-exists') || options.includes('--may-exist');
    if (name === 'find') return this.#find(state, args);
    if (name === 'get') return `${state.bridges.get(second) ?? ''}\n`;
    if (name === 'create') {
      const record = `00000000-0000-4000-8000-${String((this.#records += 1)).padStart(12, '0')}`;
      state.queues.set(record, valueOf(args.find((word) => word.startsWith('external-ids:')) ?? ''));
      for (const option of options) if (option.startsWith('--id=')) ids.set(option.slice(5), record);
      return '';
    }
    if (name === 'add-br') addBridge(state, first, isLenient);
    else if (name === 'port-to-br') return `${portOf(state, first).bridge}\n`;
    else if (name === 'add-port') addPort(state, first, second, isLenient);
    else if (name === 'del-port') {
      if (!state.ports.delete(first) && !isLenient) throw new Refusal(`no port named ${first}`);
    } else if (name === 'destroy') {
      // a port that goes in the same step still counts
      for (const [port, { qos }] of this.#state.ports) {
        if (qos === second && !state.ports.has(port)) throw new Refusal('referential integrity violation');
      }
      removeQueues(state, second, isLenient);
    } else if (name === 'remove') {
      const port = isLenient ? state.ports.get(second) : portOf(state, second);
      if (port?.qos === rest[1]) delete port?.qos;
    } else if (name === 'set') for (const word of rest) set(state, ids, { table: first, record: second, word });
    else throw new Error(`the fake switch does not know ${words.join(' ')}`);
    return '';
  }

  #find(state: State, args: readonly string[]): string {
    if (args.some((word) => word.includes('!=')))
      return [...state.queues.values()].map((of) => `nova-port=${of}\n`).join('');
    const owner = valueOf(args.find((word) => word.startsWith('external-ids:')) ?? '');
    return [...state.queues].flatMap(([record, of]) => (of === owner ? [`${record}\n`] : [])).join('');
  }
}

function split(words: readonly string[]): readonly (readonly string[])[] {
  const commands: string[][] = [[]];
  for (const word of words) {
    if (word === '--') commands.push([]);
    else commands.at(-1)?.push(word);
  }
  return commands.filter((command) => command.length > 0);
}

function valueOf(word: string): string {
  return word.replace(/^[^=]*=/, '').replaceAll('"', '');
}

function portOf(state: State, name: string): Port {
  const port = state.ports.get(name);
  if (!port) throw new Refusal(`no row "${name}" in table Port`);
  return port;
}

function addBridge(state: State, name: string, isLenient: boolean): void {
  if (state.bridges.has(name) && !isLenient) throw new Refusal(`bridge ${name} exists`);
  if (!state.bridges.has(name)) state.bridges.set(name, 'system');
}

function addPort(state: State, bridge: string, name: string, isLenient: boolean): void {
  if (!state.bridges.has(bridge)) throw new Refusal(`no bridge named ${bridge}`);
  const there = state.ports.get(name);
  if (there && !(isLenient && there.bridge === bridge)) {
    throw new Refusal(`cannot create a port named ${name} because a port named ${name} already exists`);
  }
  if (!there) state.ports.set(name, { bridge, externalIds: new Map() });
}

function removeQueues(state: State, record: string, isLenient: boolean): void {
  if (!state.queues.delete(record) && !isLenient) throw new Refusal(`no row ${record} in table QoS`);
  if ([...state.ports.values()].some(({ qos }) => qos === record)) throw new Refusal('referential integrity violation');
}

function set(
  state: State,
  ids: Map<string, string>,
  { table, record, word }: { readonly table: string; readonly record: string; readonly word: string },
): void {
  const value = valueOf(word);
  if (table === 'Bridge') {
    state.bridges.set(record, value);
    return;
  }
  const port = portOf(state, record);
  if (word.startsWith('external-ids:')) port.externalIds.set(word.slice(13, word.indexOf('=')), value);
  else if (word.startsWith('mtu_request=')) port.mtu = Number(value);
  else if (word.startsWith('tag=')) port.tag = Number(value);
  else if (word.startsWith('qos=')) port.qos = ids.get(value) ?? value;
  else throw new Error(`the fake switch does not know ${word}`);
}
