// zfs and zpool in memory, as the commands of a FakeHost: datasets, snapshots, clones, properties, mounts.
import type { FakeCall, FakeHost } from './fake-host.ts';

interface Dataset {
  readonly properties: Map<string, string>;
  readonly origin: string;
}

class Complaint extends Error {}

export class FakeZfs {
  readonly datasets = new Map<string, Dataset>();
  /** In the order of their creation. */
  readonly snapshots = new Set<string>();
  readonly snapshotProperties = new Map<string, Map<string, string>>();
  readonly mounted = new Set<string>();
  /** Datasets that some process uses: they cannot be unmounted, destroyed or renamed. */
  readonly busy = new Set<string>();
  readonly #host: FakeHost;

  constructor(host: FakeHost) {
    this.#host = host;
    host.on(/^(zfs|zpool) /, (call) => this.#answer(call));
  }

  #answer({ argv }: FakeCall): { stdout?: string; stderr?: string; exitCode?: number } {
    try {
      const [tool, verb = '', ...rest] = argv;
      return { stdout: tool === 'zpool' ? this.#zpool(verb, rest) : this.#zfs(verb, rest) };
    } catch (error) {
      if (error instanceof Complaint) return { stderr: error.message, exitCode: 1 };
      throw error;
    }
  }

  #zpool(verb: string, rest: readonly string[]): string {
    if (verb === 'create') this.#add(rest.at(-2) ?? '', '-', []);
    if (verb === 'destroy') this.#destroy(rest.at(-1) ?? '');
    return '';
  }

  #zfs(verb: string, rest: readonly string[]): string {
    const [last = '', previous = ''] = rest.toReversed();
    const actions: Record<string, () => string> = {
      create: () => this.#add(last, '-', rest),
      clone: () => {
        this.#require(previous);
        return this.#add(last, previous, rest);
      },
      snapshot: () => {
        if (this.snapshots.has(last)) throw new Complaint(`cannot create snapshot '${last}': dataset already exists`);
        this.#require(last.split('@')[0] ?? '');
        this.snapshots.add(last);
        this.snapshotProperties.set(last, new Map(pairsOf(rest)));
        return '';
      },
      rollback: () => '',
      promote: () => '',
      inherit: () => {
        this.#require(last).properties.delete(previous);
        return '';
      },
      rename: () => this.#rename(previous, last),
      destroy: () => this.#destroy(last),
      set: () => {
        const [name = '', value = ''] = previous.split('=');
        this.#require(last).properties.set(name, value);
        return '';
      },
      get: () => this.#get(previous, last),
      list: () => this.#list(rest),
      mount: () => {
        // A clone shows the files of its origin; one stands for them all.
        if (this.#require(last).origin !== '-') this.#host.files.set(`${this.#mountPoint(last)}/rootfs`, null);
        this.mounted.add(last);
        this.#host.mounts.table.set(this.#mountPoint(last), [last]);
        return '';
      },
      umount: () => {
        if (this.busy.has(last)) throw new Complaint(`cannot unmount '${last}': umount failed`);
        this.mounted.delete(last);
        this.#host.mounts.table.delete(this.#mountPoint(last));
        return '';
      },
    };
    const action = actions[verb];
    if (!action) throw new Error(`the fake zfs does not know ${verb}`);
    return action();
  }

  #add(name: string, origin: string, options: readonly string[]): string {
    if (this.datasets.has(name)) throw new Complaint(`cannot create '${name}': dataset already exists`);
    if (name.includes('/')) this.#require(name.slice(0, name.lastIndexOf('/')));
    this.datasets.set(name, { properties: new Map(pairsOf(options)), origin });
    return '';
  }

  #require(name: string): Dataset {
    const dataset = this.datasets.get(name.split('@')[0] ?? '');
    if (!dataset || (name.includes('@') && !this.snapshots.has(name))) {
      throw new Complaint(`cannot open '${name}': dataset does not exist`);
    }
    return dataset;
  }

  #refuseBusy(name: string, what: string): void {
    if (this.busy.has(name)) throw new Complaint(`cannot ${what} '${name}': dataset is busy`);
  }

  #below(name: string): readonly string[] {
    return [...this.datasets.keys()].filter((other) => other === name || other.startsWith(`${name}/`));
  }

  #destroy(name: string): string {
    this.#require(name);
    this.#refuseBusy(name, 'destroy');
    if (name.includes('@')) {
      const clone = [...this.datasets].find(([, { origin }]) => origin === name);
      if (clone) throw new Complaint(`cannot destroy '${name}': snapshot is cloned`);
      this.snapshots.delete(name);
      return '';
    }
    const doomed = this.#below(name);
    for (const [other, { origin }] of this.datasets) {
      if (!doomed.includes(other) && doomed.includes(origin.split('@')[0] ?? '')) {
        throw new Complaint(`cannot destroy '${name}': filesystem has dependent clones`);
      }
    }
    for (const dataset of doomed) this.#forget(dataset);
    return '';
  }

  #forget(dataset: string): void {
    this.#host.mounts.table.delete(this.#mountPoint(dataset));
    this.datasets.delete(dataset);
    for (const snapshot of this.snapshots) if (snapshot.startsWith(`${dataset}@`)) this.snapshots.delete(snapshot);
  }

  #rename(from: string, to: string): string {
    const dataset = this.#require(from);
    this.#refuseBusy(from, 'rename');
    if (this.datasets.has(to)) throw new Complaint(`cannot rename '${from}': dataset already exists`);
    if (from.includes('@')) return this.#renameSnapshot(from, to);
    this.datasets.delete(from);
    this.datasets.set(to, dataset);
    for (const snapshot of this.snapshots) {
      if (!snapshot.startsWith(`${from}@`)) continue;
      this.snapshots.delete(snapshot);
      this.snapshots.add(to + snapshot.slice(from.length));
    }
    for (const [name, { properties, origin }] of this.datasets) {
      if (origin.startsWith(`${from}@`))
        this.datasets.set(name, { properties, origin: to + origin.slice(from.length) });
    }
    return '';
  }

  #renameSnapshot(from: string, to: string): string {
    this.snapshots.delete(from);
    this.snapshots.add(to);
    this.snapshotProperties.set(to, this.snapshotProperties.get(from) ?? new Map());
    for (const [name, { properties, origin }] of this.datasets) {
      if (origin === from) this.datasets.set(name, { properties, origin: to });
    }
    return '';
  }

  #get(names: string, name: string): string {
    const { properties, origin } = this.#require(name);
    const isSnapshot = name.includes('@');
    const own = isSnapshot ? this.snapshotProperties.get(name) : undefined;
    const createtxg = String([...this.snapshots].indexOf(name));
    const values: Record<string, string> = { used: '4096', referenced: '4096', available: '1000000', createtxg };
    if (!isSnapshot) values['origin'] = origin;
    const valueOf = (property: string): string =>
      own?.get(property) ?? properties.get(property) ?? values[property] ?? '-';
    return names
      .split(',')
      .map((property) => `${property}\t${valueOf(property)}\n`)
      .join('');
  }

  #list(rest: readonly string[]): string {
    const name = rest.at(-1) ?? '';
    const option = (flag: string) => rest[rest.indexOf(flag) + 1] ?? '';
    this.#require(name);
    if (!rest.includes('-r')) return `${name}\n`;
    const snapshots = option('-t') === 'snapshot';
    const within = rest.includes('-d') ? `${name}@` : `${name}/`;
    const found = snapshots ? [...this.snapshots].filter((one) => one.startsWith(within)) : this.#below(name);
    const columns = option('-o').split(',').slice(1);
    const row = (one: string) =>
      [one, ...columns.map((column) => this.#get(column, one).trim().split('\t')[1] ?? '-')].join('\t');
    return found.map((one) => `${row(one)}\n`).join('');
  }

  /** Inherited from the folder dataset that has one. */
  #mountPoint(name: string): string {
    for (let at = name; at !== ''; at = at.includes('/') ? at.slice(0, at.lastIndexOf('/')) : '') {
      const point = this.datasets.get(at)?.properties.get('mountpoint');
      if (point !== undefined && point !== 'none') return point + name.slice(at.length);
    }
    return 'none';
  }
}

function pairsOf(options: readonly string[]): readonly [string, string][] {
  return options.filter((option) => option.includes('=')).map((option) => option.split('=') as [string, string]);
}
