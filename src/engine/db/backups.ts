// Backups of instances, and those of custom volumes, in the database.
import { AppError } from '#src/lib/errors.ts';
import type { BackupRecord } from './records.ts';
import { flag, integer, text, toSql } from './rows.ts';
import { isUniqueViolation, type Sqlite, type SqlRow } from './sqlite.ts';

function backupOf(row: SqlRow, owner: string): BackupRecord {
  return {
    id: integer(row, 'id'),
    instanceId: integer(row, owner),
    name: text(row, 'name'),
    file: text(row, 'file'),
    instanceOnly: flag(row, 'instance_only'),
    optimized: flag(row, 'optimized'),
    createdAt: text(row, 'created_at'),
    expiresAt: text(row, 'expires_at'),
  };
}

/** Of what it is, and its file. */
export interface BackupPlace {
  readonly pool: string;
  readonly project: string;
  readonly owner: string;
  readonly name: string;
  readonly file: string;
}

interface BackupTable {
  readonly table: string;
  readonly owner: string;
  readonly owners: 'instances' | 'storage_volumes';
}

export class BackupRows {
  readonly #sqlite: Sqlite;

  readonly #table: string;
  readonly #owner: string;
  readonly #owners: string;

  constructor(sqlite: Sqlite, { table, owner, owners }: BackupTable) {
    this.#sqlite = sqlite;
    this.#table = table;
    this.#owner = owner;
    this.#owners = owners;
  }

  /** In the order of creation; of all instances when none is named. */
  list(instanceId?: number): readonly BackupRecord[] {
    const order = 'ORDER BY created_at, id';
    const rows =
      instanceId === undefined
        ? this.#sqlite.all(`SELECT * FROM ${this.#table} ${order}`)
        : this.#sqlite.all(`SELECT * FROM ${this.#table} WHERE ${this.#owner} = ? ${order}`, instanceId);
    return rows.map((row) => backupOf(row, this.#owner));
  }

  places(): readonly BackupPlace[] {
    const sql = `SELECT o.pool, o.project, o.name AS owner, b.name, b.file
      FROM ${this.#table} b JOIN ${this.#owners} o ON o.id = b.${this.#owner}`;
    return this.#sqlite.all(sql).map((row) => ({
      pool: text(row, 'pool'),
      project: text(row, 'project'),
      owner: text(row, 'owner'),
      name: text(row, 'name'),
      file: text(row, 'file'),
    }));
  }

  find(instanceId: number, name: string): BackupRecord | undefined {
    const sql = `SELECT * FROM ${this.#table} WHERE ${this.#owner} = ? AND name = ?`;
    const row = this.#sqlite.get(sql, instanceId, name);
    return row && backupOf(row, this.#owner);
  }

  /** AppError 'conflict' when the name is taken. */
  create(backup: Omit<BackupRecord, 'id'>): void {
    const { instanceId, name, file, instanceOnly, optimized, createdAt, expiresAt } = backup;
    this.#unique(name, () => {
      this.#sqlite.run(
        `INSERT INTO ${this.#table} (${this.#owner}, name, file, instance_only, optimized, created_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)`,
        instanceId,
        name,
        file,
        toSql(instanceOnly),
        toSql(optimized),
        createdAt,
        expiresAt,
      );
    });
  }

  /** AppError 'conflict' when the new name is taken. */
  rename(id: number, name: string): void {
    this.#unique(name, () => void this.#sqlite.run(`UPDATE ${this.#table} SET name = ? WHERE id = ?`, name, id));
  }

  /** Absent is success. */
  delete(id: number): void {
    this.#sqlite.run(`DELETE FROM ${this.#table} WHERE id = ?`, id);
  }

  #unique(name: string, write: () => void): void {
    try {
      write();
    } catch (error) {
      if (!isUniqueViolation(error)) throw error;
      throw new AppError('conflict', `Backup "${name}" already exists`, { cause: error });
    }
  }
}
