// Instances and their snapshots in the database.
import { AppError } from '#src/lib/errors.ts';
import type { ProjectRows } from './projects.ts';
import {
  type InstanceChanges,
  type InstanceRecord,
  NEVER_USED,
  type NewInstance,
  type NewSnapshot,
  type SnapshotRecord,
} from './records.ts';
import type { DeviceMap } from '../types.ts';
import { flag, integer, json, text, toSql } from './rows.ts';
import { isUniqueViolation, type Sqlite, type SqlRow } from './sqlite.ts';

const SELECT = `
  SELECT i.*, (
    SELECT json_group_array(p.name ORDER BY ip.position)
    FROM instance_profiles ip JOIN profiles p ON p.id = ip.profile_id WHERE ip.instance_id = i.id
  ) AS profiles FROM instances i`;

const COLUMNS = {
  architecture: 'architecture',
  ephemeral: 'ephemeral',
  stateful: 'stateful',
  description: 'description',
  config: 'config',
  devices: 'devices',
  pool: 'pool',
  lastUsedAt: 'last_used_at',
} as const satisfies Partial<Record<keyof InstanceChanges, string>>;

function recordOf(row: SqlRow): InstanceRecord {
  return {
    id: integer(row, 'id'),
    project: text(row, 'project'),
    name: text(row, 'name'),
    uuid: text(row, 'uuid'),
    type: 'container',
    architecture: text(row, 'architecture'),
    ephemeral: flag(row, 'ephemeral'),
    stateful: flag(row, 'stateful'),
    description: text(row, 'description'),
    config: json(row, 'config'),
    devices: json(row, 'devices'),
    profiles: json(row, 'profiles'),
    pool: text(row, 'pool'),
    createdAt: text(row, 'created_at'),
    lastUsedAt: text(row, 'last_used_at'),
  };
}

export class InstanceRows {
  readonly #sqlite: Sqlite;
  readonly #projects: ProjectRows;

  constructor(sqlite: Sqlite, projects: ProjectRows) {
    this.#sqlite = sqlite;
    this.#projects = projects;
  }

  /** Sorted by name; of all projects when none is named. */
  list(project?: string): readonly InstanceRecord[] {
    const rows =
      project === undefined
        ? this.#sqlite.all(`${SELECT} ORDER BY i.name, i.project`)
        : this.#sqlite.all(`${SELECT} WHERE i.project = ? ORDER BY i.name`, project);
    return rows.map(recordOf);
  }

  names(project: string): readonly string[] {
    const rows = this.#sqlite.all('SELECT name FROM instances WHERE project = ? ORDER BY name', project);
    return rows.map((row) => text(row, 'name'));
  }

  /** Those of which a device of their own may have that source; the caller looks closer. */
  withSource(project: string, source: string): readonly InstanceRecord[] {
    const where = `WHERE i.project = ? AND instr(i.devices, ?) > 0 ORDER BY i.name`;
    return this.#sqlite.all(`${SELECT} ${where}`, project, JSON.stringify(source)).map(recordOf);
  }

  find(project: string, name: string): InstanceRecord | undefined {
    const row = this.#sqlite.get(`${SELECT} WHERE i.project = ? AND i.name = ?`, project, name);
    return row && recordOf(row);
  }

  /** AppError 'not_found' with LXD's text. */
  get(project: string, name: string): InstanceRecord {
    const record = this.find(project, name);
    if (!record) throw new AppError('not_found', 'Instance not found');
    return record;
  }

  /** AppError 'conflict' when the name is taken, 'not_found' for an unknown profile. */
  create(instance: NewInstance): InstanceRecord {
    return this.#sqlite.transaction(() => {
      const id = this.#insert(instance);
      this.#setProfiles(id, instance.project, instance.profiles);
      return { ...instance, id };
    });
  }

  /** Only what `changes` names. */
  update(id: number, changes: InstanceChanges): void {
    const entries = Object.entries(COLUMNS).filter(([field]) => changes[field as keyof typeof COLUMNS] !== undefined);
    this.#sqlite.transaction(() => {
      if (entries.length > 0) {
        const assignments = entries.map(([, column]) => `${column} = ?`).join(', ');
        const values = entries.map(([field]) => toSql(changes[field as keyof typeof COLUMNS]));
        this.#sqlite.run(`UPDATE instances SET ${assignments} WHERE id = ?`, ...values, id);
      }
      if (changes.profiles) this.#setProfiles(id, this.#projectOf(id), changes.profiles);
    });
  }

  /** AppError 'conflict' when the new name is taken. */
  rename(id: number, { project, name }: Pick<InstanceRecord, 'project' | 'name'>): void {
    try {
      this.#sqlite.run('UPDATE instances SET project = ?, name = ? WHERE id = ?', project, name, id);
    } catch (error) {
      if (!isUniqueViolation(error)) throw error;
      throw new AppError('conflict', `Name "${name}" already in use`, { cause: error });
    }
  }

  /** With its snapshots. Absent is success. */
  delete(id: number): void {
    this.#sqlite.run('DELETE FROM instances WHERE id = ?', id);
  }

  usingProfile(project: string, profile: string): readonly InstanceRecord[] {
    const condition = `i.id IN (
      SELECT ip.instance_id FROM instance_profiles ip JOIN profiles p ON p.id = ip.profile_id
      WHERE p.project = ? AND p.name = ?)`;
    return this.#sqlite.all(`${SELECT} WHERE ${condition} ORDER BY i.name, i.project`, project, profile).map(recordOf);
  }

  usingPool(pool: string): readonly InstanceRecord[] {
    return this.#sqlite.all(`${SELECT} WHERE i.pool = ? ORDER BY i.name`, pool).map(recordOf);
  }

  #insert(instance: NewInstance): number {
    const { project, name, uuid, type, createdAt } = instance;
    const fields = Object.keys(COLUMNS) as (keyof typeof COLUMNS)[];
    const columns = fields.map((field) => COLUMNS[field]).join(', ');
    const marks = fields.map(() => '?').join(', ');
    try {
      return this.#sqlite.run(
        `INSERT INTO instances (project, name, uuid, type, created_at, ${columns}) VALUES (?, ?, ?, ?, ?, ${marks})`,
        project,
        name,
        uuid,
        type,
        createdAt,
        ...fields.map((field) => toSql(instance[field])),
      ).id;
    } catch (error) {
      if (!isUniqueViolation(error)) throw error;
      const text = 'Add instance info to the database: This "instances" entry already exists';
      throw new AppError('conflict', text, { cause: error });
    }
  }

  #projectOf(id: number): string {
    const row = this.#sqlite.get('SELECT project FROM instances WHERE id = ?', id);
    if (!row) throw new AppError('not_found', 'Instance not found');
    return text(row, 'project');
  }

  #setProfiles(id: number, project: string, profiles: readonly string[]): void {
    this.#sqlite.run('DELETE FROM instance_profiles WHERE instance_id = ?', id);
    for (const [position, profile] of profiles.entries()) {
      const { changes } = this.#sqlite.run(
        `INSERT INTO instance_profiles (instance_id, position, profile_id)
         SELECT ?, ?, id FROM profiles WHERE project = ? AND name = ?`,
        id,
        position,
        this.#projects.holder('profiles', project),
        profile,
      );
      if (changes === 0) throw new AppError('not_found', `Requested profile "${profile}" doesn't exist`);
    }
  }
}

const SNAPSHOT_COLUMNS = {
  instanceId: 'instance_id',
  name: 'name',
  architecture: 'architecture',
  ephemeral: 'ephemeral',
  stateful: 'stateful',
  description: 'description',
  config: 'config',
  devices: 'devices',
  profiles: 'profiles',
  createdAt: 'created_at',
  lastUsedAt: 'last_used_at',
  expiresAt: 'expires_at',
} as const satisfies Record<keyof NewSnapshot, string>;

function snapshotOf(row: SqlRow): SnapshotRecord {
  return {
    id: integer(row, 'id'),
    instanceId: integer(row, 'instance_id'),
    name: text(row, 'name'),
    architecture: text(row, 'architecture'),
    ephemeral: flag(row, 'ephemeral'),
    stateful: flag(row, 'stateful'),
    description: text(row, 'description'),
    config: json(row, 'config'),
    devices: json(row, 'devices'),
    profiles: json(row, 'profiles'),
    createdAt: text(row, 'created_at'),
    lastUsedAt: text(row, 'last_used_at'),
    expiresAt: text(row, 'expires_at'),
  };
}

export class SnapshotRows {
  readonly #sqlite: Sqlite;

  constructor(sqlite: Sqlite) {
    this.#sqlite = sqlite;
  }

  /** In the order of creation. */
  list(instanceId: number): readonly SnapshotRecord[] {
    const sql = 'SELECT * FROM instance_snapshots WHERE instance_id = ? ORDER BY created_at, id';
    return this.#sqlite.all(sql, instanceId).map(snapshotOf);
  }

  /** In the order of creation. */
  names(instanceId: number): readonly string[] {
    const sql = 'SELECT name FROM instance_snapshots WHERE instance_id = ? ORDER BY created_at, id';
    return this.#sqlite.all(sql, instanceId).map((row) => text(row, 'name'));
  }

  /** Of all instances, for lists; in the order of creation. */
  listAll(): readonly SnapshotRecord[] {
    return this.#sqlite.all('SELECT * FROM instance_snapshots ORDER BY created_at, id').map(snapshotOf);
  }

  /** Those with an end that is not after `now`. */
  expired(now: string): readonly SnapshotRecord[] {
    const sql = 'SELECT * FROM instance_snapshots WHERE expires_at > ? AND expires_at <= ?';
    return this.#sqlite.all(sql, NEVER_USED, now).map(snapshotOf);
  }

  find(instanceId: number, name: string): SnapshotRecord | undefined {
    const sql = 'SELECT * FROM instance_snapshots WHERE instance_id = ? AND name = ?';
    const row = this.#sqlite.get(sql, instanceId, name);
    return row && snapshotOf(row);
  }

  /** AppError 'conflict' when the name is taken. */
  create(snapshot: NewSnapshot): SnapshotRecord {
    const fields = Object.keys(SNAPSHOT_COLUMNS) as (keyof NewSnapshot)[];
    const columns = fields.map((field) => SNAPSHOT_COLUMNS[field]).join(', ');
    const sql = `INSERT INTO instance_snapshots (${columns}) VALUES (${fields.map(() => '?').join(', ')})`;
    try {
      const { id } = this.#sqlite.run(sql, ...fields.map((field) => toSql(snapshot[field])));
      return { ...snapshot, id };
    } catch (error) {
      if (!isUniqueViolation(error)) throw error;
      throw new AppError('conflict', `Snapshot "${snapshot.name}" already exists`, { cause: error });
    }
  }

  setDevices(id: number, devices: DeviceMap): void {
    this.#sqlite.run('UPDATE instance_snapshots SET devices = ? WHERE id = ?', JSON.stringify(devices), id);
  }

  setExpiry(id: number, expiresAt: string): void {
    this.#sqlite.run('UPDATE instance_snapshots SET expires_at = ? WHERE id = ?', expiresAt, id);
  }

  /** AppError 'conflict' when the new name is taken. */
  rename(id: number, name: string): void {
    try {
      this.#sqlite.run('UPDATE instance_snapshots SET name = ? WHERE id = ?', name, id);
    } catch (error) {
      if (!isUniqueViolation(error)) throw error;
      throw new AppError('conflict', `Snapshot "${name}" already exists`, { cause: error });
    }
  }

  /** Absent is success. */
  delete(id: number): void {
    this.#sqlite.run('DELETE FROM instance_snapshots WHERE id = ?', id);
  }
}
