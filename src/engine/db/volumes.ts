// Custom volumes and their snapshots in the database.
import { AppError } from '#src/lib/errors.ts';
import type { VolumeRecord, VolumeSnapshotRecord } from './records.ts';
import { integer, json, text } from './rows.ts';
import { isUniqueViolation, type Sqlite, type SqlRow, type SqlValue } from './sqlite.ts';

type Pending = VolumeRecord['pending'];

function volumeOf(row: SqlRow): VolumeRecord {
  return {
    id: integer(row, 'id'),
    pool: text(row, 'pool'),
    project: text(row, 'project'),
    name: text(row, 'name'),
    hostName: text(row, 'host_name'),
    description: text(row, 'description'),
    config: json(row, 'config'),
    createdAt: text(row, 'created_at'),
    pending: text(row, 'pending') as Pending,
  };
}

function snapshotOf(row: SqlRow): VolumeSnapshotRecord {
  return {
    id: integer(row, 'id'),
    volumeId: integer(row, 'volume_id'),
    name: text(row, 'name'),
    hostName: text(row, 'host_name'),
    description: text(row, 'description'),
    config: json(row, 'config'),
    createdAt: text(row, 'created_at'),
    expiresAt: text(row, 'expires_at'),
    pending: text(row, 'pending') as Pending,
  };
}

export interface VolumeKey {
  readonly pool: string;
  readonly project: string;
  readonly name: string;
}

export class VolumeRows {
  readonly #sqlite: Sqlite;

  constructor(sqlite: Sqlite) {
    this.#sqlite = sqlite;
  }

  /** Those that are there for users, sorted by name. */
  list(pool?: string): readonly VolumeRecord[] {
    const ready = "SELECT * FROM storage_volumes WHERE pending <> 'create'";
    const rows =
      pool === undefined
        ? this.#sqlite.all(`${ready} ORDER BY name`)
        : this.#sqlite.all(`${ready} AND pool = ? ORDER BY name`, pool);
    return rows.map(volumeOf);
  }

  pending(): readonly VolumeRecord[] {
    return this.#sqlite.all("SELECT * FROM storage_volumes WHERE pending <> ''").map(volumeOf);
  }

  find({ pool, project, name }: VolumeKey): VolumeRecord | undefined {
    const sql = "SELECT * FROM storage_volumes WHERE pool = ? AND project = ? AND name = ? AND pending <> 'create'";
    const row = this.#sqlite.get(sql, pool, project, name);
    return row && volumeOf(row);
  }

  /** AppError 'conflict' when the name is taken. */
  create(volume: Omit<VolumeRecord, 'id'>): VolumeRecord {
    const { pool, project, name, hostName, description, config, createdAt, pending } = volume;
    return unique('Volume by that name already exists', () => {
      const sql = `INSERT INTO storage_volumes (pool, project, name, host_name, description, config, created_at, pending)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)`;
      const values = [pool, project, name, hostName, description, JSON.stringify(config), createdAt, pending];
      return { ...volume, id: this.#sqlite.run(sql, ...values).id };
    });
  }

  update(id: number, { description, config }: Pick<VolumeRecord, 'description' | 'config'>): void {
    const sql = 'UPDATE storage_volumes SET description = ?, config = ? WHERE id = ?';
    this.#sqlite.run(sql, description, JSON.stringify(config), id);
  }

  setPending(id: number, pending: Pending): void {
    this.#sqlite.run('UPDATE storage_volumes SET pending = ? WHERE id = ?', pending, id);
  }

  /** AppError 'conflict' when the new name is taken. */
  rename(id: number, name: string): void {
    unique('Volume by that name already exists', () =>
      this.#sqlite.run('UPDATE storage_volumes SET name = ? WHERE id = ?', name, id),
    );
  }

  /** With its snapshots. Absent is success. */
  delete(id: number): void {
    this.#sqlite.run('DELETE FROM storage_volumes WHERE id = ?', id);
  }
}

export class VolumeSnapshotRows {
  readonly #sqlite: Sqlite;

  constructor(sqlite: Sqlite) {
    this.#sqlite = sqlite;
  }

  /** In the order of creation. */
  list(volumeId: number): readonly VolumeSnapshotRecord[] {
    const sql = `SELECT * FROM storage_volume_snapshots WHERE volume_id = ? AND pending <> 'create'
      ORDER BY created_at, id`;
    return this.#sqlite.all(sql, volumeId).map(snapshotOf);
  }

  pending(): readonly VolumeSnapshotRecord[] {
    return this.#sqlite.all("SELECT * FROM storage_volume_snapshots WHERE pending <> ''").map(snapshotOf);
  }

  /** AppError 'conflict' when the name is taken. */
  create(snapshot: Omit<VolumeSnapshotRecord, 'id'>): VolumeSnapshotRecord {
    const { volumeId, name, hostName, description, config, createdAt, expiresAt, pending } = snapshot;
    return unique(`Snapshot "${name}" already exists`, () => {
      const sql = `INSERT INTO storage_volume_snapshots
        (volume_id, name, host_name, description, config, created_at, expires_at, pending)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)`;
      const values: readonly SqlValue[] = [
        volumeId,
        name,
        hostName,
        description,
        JSON.stringify(config),
        createdAt,
        expiresAt,
        pending,
      ];
      return { ...snapshot, id: this.#sqlite.run(sql, ...values).id };
    });
  }

  update(id: number, { description, expiresAt }: Pick<VolumeSnapshotRecord, 'description' | 'expiresAt'>): void {
    const sql = 'UPDATE storage_volume_snapshots SET description = ?, expires_at = ? WHERE id = ?';
    this.#sqlite.run(sql, description, expiresAt, id);
  }

  /** AppError 'conflict' when the new name is taken. */
  rename(id: number, name: string): void {
    unique(`Snapshot "${name}" already exists`, () =>
      this.#sqlite.run('UPDATE storage_volume_snapshots SET name = ? WHERE id = ?', name, id),
    );
  }

  setPending(id: number, pending: Pending): void {
    this.#sqlite.run('UPDATE storage_volume_snapshots SET pending = ? WHERE id = ?', pending, id);
  }

  /** Absent is success. */
  delete(id: number): void {
    this.#sqlite.run('DELETE FROM storage_volume_snapshots WHERE id = ?', id);
  }
}

function unique<T>(complaint: string, write: () => T): T {
  try {
    return write();
  } catch (error) {
    if (!isUniqueViolation(error)) throw error;
    throw new AppError('conflict', complaint, { cause: error });
  }
}
