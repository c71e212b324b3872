// Pools, trusted certificates, server configuration and warnings in the database.
import { randomUUID } from 'node:crypto';
import { AppError } from '#src/lib/errors.ts';
import type { ConfigMap } from '../types.ts';
import type { CertificateRecord, PoolRecord, WarningRecord } from './records.ts';
import { flag, integer, json, text } from './rows.ts';
import { isUniqueViolation, type Sqlite, type SqlRow } from './sqlite.ts';

function poolOf(row: SqlRow): PoolRecord {
  return {
    id: integer(row, 'id'),
    name: text(row, 'name'),
    driver: text(row, 'driver'),
    description: text(row, 'description'),
    config: json(row, 'config'),
  };
}

export class PoolRows {
  readonly #sqlite: Sqlite;

  constructor(sqlite: Sqlite) {
    this.#sqlite = sqlite;
  }

  /** Not those that are being made. */
  list(): readonly PoolRecord[] {
    return this.#sqlite.all("SELECT * FROM storage_pools WHERE pending <> 'create' ORDER BY name").map(poolOf);
  }

  /** Those that are being made or removed, or were when a daemon was killed. */
  pending(): readonly PoolRecord[] {
    return this.#sqlite.all("SELECT * FROM storage_pools WHERE pending <> ''").map(poolOf);
  }

  find(name: string): PoolRecord | undefined {
    const row = this.#sqlite.get("SELECT * FROM storage_pools WHERE name = ? AND pending <> 'create'", name);
    return row && poolOf(row);
  }

  /** AppError 'not_found' with LXD's text. */
  get(name: string): PoolRecord {
    const record = this.find(name);
    if (!record) throw new AppError('not_found', 'Storage pool not found');
    return record;
  }

  /** The id. AppError 'conflict' when the name is taken. */
  create({ name, driver, description, config }: Omit<PoolRecord, 'id'>, pending: '' | 'create' = ''): number {
    try {
      const sql = 'INSERT INTO storage_pools (name, driver, description, config, pending) VALUES (?, ?, ?, ?, ?)';
      return this.#sqlite.run(sql, name, driver, description, JSON.stringify(config), pending).id;
    } catch (error) {
      if (!isUniqueViolation(error)) throw error;
      throw new AppError('conflict', 'The storage pool already exists: The record already exists', { cause: error });
    }
  }

  update(id: number, { description, config }: Pick<PoolRecord, 'description' | 'config'>): void {
    const sql = 'UPDATE storage_pools SET description = ?, config = ? WHERE id = ?';
    this.#sqlite.run(sql, description, JSON.stringify(config), id);
  }

  /** One that is made now. */
  complete(id: number, config: ConfigMap): void {
    this.#sqlite.run("UPDATE storage_pools SET config = ?, pending = '' WHERE id = ?", JSON.stringify(config), id);
  }

  setPending(id: number, pending: '' | 'delete'): void {
    this.#sqlite.run('UPDATE storage_pools SET pending = ? WHERE id = ?', pending, id);
  }

  delete(id: number): void {
    this.#sqlite.run('DELETE FROM storage_pools WHERE id = ?', id);
  }
}

function certificateOf(row: SqlRow): CertificateRecord {
  return {
    fingerprint: text(row, 'fingerprint'),
    type: text(row, 'type') === 'metrics' ? 'metrics' : 'client',
    name: text(row, 'name'),
    certificate: text(row, 'certificate'),
    restricted: flag(row, 'restricted'),
    projects: json(row, 'projects'),
  };
}

export class CertificateRows {
  readonly #sqlite: Sqlite;

  constructor(sqlite: Sqlite) {
    this.#sqlite = sqlite;
  }

  list(): readonly CertificateRecord[] {
    return this.#sqlite.all('SELECT * FROM certificates ORDER BY id').map(certificateOf);
  }

  /** By the whole fingerprint. */
  find(fingerprint: string): CertificateRecord | undefined {
    const row = this.#sqlite.get('SELECT * FROM certificates WHERE fingerprint = ?', fingerprint);
    return row && certificateOf(row);
  }

  /** By a unique prefix. AppError 'not_found', or 'invalid' when more than one matches. */
  get(prefix: string): CertificateRecord {
    const sql = 'SELECT * FROM certificates WHERE substr(fingerprint, 1, ?) = ? LIMIT 2';
    const rows = prefix === '' ? [] : this.#sqlite.all(sql, prefix.length, prefix);
    const [row] = rows;
    if (!row) throw new AppError('not_found', 'Certificate not found');
    if (rows.length > 1) throw new AppError('invalid', 'More than one certificate matches');
    return certificateOf(row);
  }

  /** AppError 'invalid' when it is there already. */
  create(record: CertificateRecord): void {
    const { fingerprint, type, name, certificate, restricted, projects } = record;
    try {
      this.#sqlite.run(
        'INSERT INTO certificates (fingerprint, type, name, certificate, restricted, projects) VALUES (?, ?, ?, ?, ?, ?)',
        fingerprint,
        type,
        name,
        certificate,
        restricted ? 1 : 0,
        JSON.stringify(projects),
      );
    } catch (error) {
      if (!isUniqueViolation(error)) throw error;
      throw new AppError('invalid', 'Certificate already in trust store', { cause: error });
    }
  }

  /** `fingerprint`: the one it has now; the record may have another. AppError 'conflict' when that is taken. */
  update(fingerprint: string, record: CertificateRecord): void {
    const { type, name, certificate, restricted, projects } = record;
    try {
      this.#sqlite.run(
        `UPDATE certificates SET fingerprint = ?, certificate = ?, type = ?, name = ?, restricted = ?, projects = ?
         WHERE fingerprint = ?`,
        record.fingerprint,
        certificate,
        type,
        name,
        restricted ? 1 : 0,
        JSON.stringify(projects),
        fingerprint,
      );
    } catch (error) {
      if (!isUniqueViolation(error)) throw error;
      throw new AppError('conflict', 'Certificate already in trust store', { cause: error });
    }
  }

  delete(fingerprint: string): void {
    this.#sqlite.run('DELETE FROM certificates WHERE fingerprint = ?', fingerprint);
  }
}

/** "LGHT". */
const APPLICATION_ID = 0x4c474854;

/** Server configuration (a key that is absent has its default). */
export class ServerRows {
  readonly #sqlite: Sqlite;

  constructor(sqlite: Sqlite) {
    this.#sqlite = sqlite;
  }

  config(): ConfigMap {
    const rows = this.#sqlite.all('SELECT key, value FROM config ORDER BY key');
    return Object.fromEntries(rows.map((row) => [text(row, 'key'), text(row, 'value')]));
  }

  /** Replaces all of it. */
  setConfig(config: ConfigMap): void {
    this.#sqlite.transaction(() => {
      this.#sqlite.run('DELETE FROM config');
      for (const [key, value] of Object.entries(config)) {
        this.#sqlite.run('INSERT INTO config (key, value) VALUES (?, ?)', key, value);
      }
    });
  }

  /** Whether the things of the first start were made; they are made once, whatever is deleted later. */
  isSetUp(): boolean {
    return integer(this.#sqlite.get('PRAGMA application_id') ?? {}, 'application_id') !== 0;
  }

  markSetUp(): void {
    this.#sqlite.script(`PRAGMA application_id = ${APPLICATION_ID}`);
  }
}

function warningOf(row: SqlRow): WarningRecord {
  return {
    uuid: text(row, 'uuid'),
    type: text(row, 'type'),
    entityUrl: text(row, 'entity_url'),
    project: text(row, 'project'),
    message: text(row, 'message'),
    severity: text(row, 'severity') as WarningRecord['severity'],
    status: text(row, 'status') as WarningRecord['status'],
    count: integer(row, 'count'),
    firstSeenAt: text(row, 'first_seen_at'),
    lastSeenAt: text(row, 'last_seen_at'),
  };
}

export class WarningRows {
  readonly #sqlite: Sqlite;

  constructor(sqlite: Sqlite) {
    this.#sqlite = sqlite;
  }

  list(): readonly WarningRecord[] {
    return this.#sqlite.all('SELECT * FROM warnings ORDER BY last_seen_at DESC').map(warningOf);
  }

  get(uuid: string): WarningRecord {
    const row = this.#sqlite.get('SELECT * FROM warnings WHERE uuid = ?', uuid);
    if (!row) throw new AppError('not_found', 'Warning not found');
    return warningOf(row);
  }

  /** The same trouble with the same object counts up and is new again. */
  raise(warning: Pick<WarningRecord, 'type' | 'entityUrl' | 'message' | 'severity'> & { project?: string }): void {
    const now = new Date().toISOString();
    this.#sqlite.run(
      `INSERT INTO warnings
         (uuid, type, entity_url, project, message, severity, status, count, first_seen_at, last_seen_at)
       VALUES (?, ?, ?, ?, ?, ?, 'new', 1, ?, ?)
       ON CONFLICT (type, entity_url) DO UPDATE SET
         message = excluded.message, status = 'new', count = count + 1, last_seen_at = excluded.last_seen_at`,
      randomUUID(),
      warning.type,
      warning.entityUrl,
      warning.project ?? '',
      warning.message,
      warning.severity,
      now,
      now,
    );
  }

  /** The trouble is over. */
  resolve(type: string, entityUrl: string): void {
    const sql = "UPDATE warnings SET status = 'resolved' WHERE type = ? AND entity_url = ?";
    this.#sqlite.run(sql, type, entityUrl);
  }

  setStatus(uuid: string, status: WarningRecord['status']): void {
    this.#sqlite.run('UPDATE warnings SET status = ? WHERE uuid = ?', status, uuid);
  }

  delete(uuid: string): void {
    this.#sqlite.run('DELETE FROM warnings WHERE uuid = ?', uuid);
  }
}
