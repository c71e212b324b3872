// Managed networks and their forwards in the database.
import type { NetworkForward } from '#drivers/network/driver.ts';
import { AppError } from '#src/lib/errors.ts';
import type { NetworkRecord } from './records.ts';
import { integer, json, text } from './rows.ts';
import { isUniqueViolation, type Sqlite, type SqlRow } from './sqlite.ts';

function recordOf(row: SqlRow): NetworkRecord {
  return {
    id: integer(row, 'id'),
    project: text(row, 'project'),
    name: text(row, 'name'),
    type: text(row, 'type'),
    description: text(row, 'description'),
    config: json(row, 'config'),
    pending: text(row, 'pending') as NetworkRecord['pending'],
  };
}

export class NetworkRows {
  readonly #sqlite: Sqlite;
  /** They are few, and asked for with every nic. */
  #known: ReadonlyMap<string, NetworkRecord> | undefined;

  constructor(sqlite: Sqlite) {
    this.#sqlite = sqlite;
  }

  /** Those that are there for users, sorted by name; of all projects or one. */
  list(project?: string): readonly NetworkRecord[] {
    const ready = [...this.#all().values()].filter(({ pending }) => pending === '');
    return project === undefined ? ready : ready.filter((network) => network.project === project);
  }

  pending(): readonly NetworkRecord[] {
    return [...this.#all().values()].filter(({ pending }) => pending !== '');
  }

  find(project: string, name: string): NetworkRecord | undefined {
    const found = this.#all().get(`${project}/${name}`);
    return found?.pending === '' ? found : undefined;
  }

  /** Whatever its state. AppError 'conflict' when the name is taken. */
  create(network: Omit<NetworkRecord, 'id'>): NetworkRecord {
    const { project, name, type, description, config, pending } = network;
    const sql = `INSERT INTO networks (project, name, type, description, config, pending) VALUES (?, ?, ?, ?, ?, ?)`;
    return this.#changing(() => {
      return {
        ...network,
        id: this.#sqlite.run(sql, project, name, type, description, JSON.stringify(config), pending).id,
      };
    });
  }

  update(id: number, { description, config }: Pick<NetworkRecord, 'description' | 'config'>): void {
    const sql = 'UPDATE networks SET description = ?, config = ? WHERE id = ?';
    this.#changing(() => this.#sqlite.run(sql, description, JSON.stringify(config), id));
  }

  setPending(id: number, pending: NetworkRecord['pending']): void {
    this.#changing(() => this.#sqlite.run('UPDATE networks SET pending = ? WHERE id = ?', pending, id));
  }

  /** AppError 'conflict' when the new name is taken. */
  rename(id: number, name: string): void {
    this.#changing(() => this.#sqlite.run('UPDATE networks SET name = ? WHERE id = ?', name, id));
  }

  /** With its forwards. Absent is success. */
  delete(id: number): void {
    this.#changing(() => this.#sqlite.run('DELETE FROM networks WHERE id = ?', id));
  }

  #all(): ReadonlyMap<string, NetworkRecord> {
    this.#known ??= new Map(
      this.#sqlite
        .all('SELECT * FROM networks ORDER BY name')
        .map((row) => [`${text(row, 'project')}/${text(row, 'name')}`, recordOf(row)]),
    );
    return this.#known;
  }

  #changing<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      if (!isUniqueViolation(error)) throw error;
      throw new AppError('conflict', 'The network already exists', { cause: error });
    } finally {
      this.#known = undefined;
    }
  }
}

export class NetworkForwardRows {
  readonly #sqlite: Sqlite;

  constructor(sqlite: Sqlite) {
    this.#sqlite = sqlite;
  }

  /** Of one network, sorted by address. */
  list(networkId: number): readonly NetworkForward[] {
    const sql = 'SELECT * FROM network_forwards WHERE network_id = ? ORDER BY listen_address';
    return this.#sqlite.all(sql, networkId).map(forwardOf);
  }

  find(networkId: number, listenAddress: string): NetworkForward | undefined {
    const sql = 'SELECT * FROM network_forwards WHERE network_id = ? AND listen_address = ?';
    const row = this.#sqlite.get(sql, networkId, listenAddress);
    return row && forwardOf(row);
  }

  /** Adds it, or replaces the one of that address. */
  put(networkId: number, { listenAddress, description, config, ports }: NetworkForward): void {
    const sql = `INSERT INTO network_forwards (network_id, listen_address, description, config, ports) VALUES (?, ?, ?, ?, ?)
      ON CONFLICT (network_id, listen_address) DO UPDATE SET
        description = excluded.description, config = excluded.config, ports = excluded.ports`;
    this.#sqlite.run(sql, networkId, listenAddress, description, JSON.stringify(config), JSON.stringify(ports));
  }

  /** Absent is success. */
  delete(networkId: number, listenAddress: string): void {
    const sql = 'DELETE FROM network_forwards WHERE network_id = ? AND listen_address = ?';
    this.#sqlite.run(sql, networkId, listenAddress);
  }
}

function forwardOf(row: SqlRow): NetworkForward {
  return {
    listenAddress: text(row, 'listen_address'),
    description: text(row, 'description'),
    config: json(row, 'config'),
    ports: json(row, 'ports'),
  };
}
