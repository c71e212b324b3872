// Profiles in the database. A project that has none of its own uses those of the default project.
import { AppError } from '#src/lib/errors.ts';
import type { ProjectRows } from './projects.ts';
import type { ProfileRecord } from './records.ts';
import { integer, json, text } from './rows.ts';
import { isUniqueViolation, type Sqlite, type SqlRow } from './sqlite.ts';

function recordOf(row: SqlRow): ProfileRecord {
  return {
    id: integer(row, 'id'),
    project: text(row, 'project'),
    name: text(row, 'name'),
    description: text(row, 'description'),
    config: json(row, 'config'),
    devices: json(row, 'devices'),
  };
}

export class ProfileRows {
  readonly #sqlite: Sqlite;
  readonly #projects: ProjectRows;

  constructor(sqlite: Sqlite, projects: ProjectRows) {
    this.#sqlite = sqlite;
    this.#projects = projects;
  }

  list(project: string): readonly ProfileRecord[] {
    return this.#sqlite
      .all('SELECT * FROM profiles WHERE project = ? ORDER BY name', this.#holder(project))
      .map(recordOf);
  }

  /** Of all projects. */
  listAll(): readonly ProfileRecord[] {
    return this.#sqlite.all('SELECT * FROM profiles ORDER BY name, project').map(recordOf);
  }

  find(project: string, name: string): ProfileRecord | undefined {
    const row = this.#sqlite.get('SELECT * FROM profiles WHERE project = ? AND name = ?', this.#holder(project), name);
    return row && recordOf(row);
  }

  /** AppError 'not_found' with LXD's text. */
  get(project: string, name: string): ProfileRecord {
    const record = this.find(project, name);
    if (!record) throw new AppError('not_found', 'Profile not found');
    return record;
  }

  /** AppError 'conflict' when the name is taken. */
  create(profile: Omit<ProfileRecord, 'id'>): void {
    const { project, name, description, config, devices } = profile;
    try {
      this.#sqlite.run(
        'INSERT INTO profiles (project, name, description, config, devices) VALUES (?, ?, ?, ?, ?)',
        this.#holder(project),
        name,
        description,
        JSON.stringify(config),
        JSON.stringify(devices),
      );
    } catch (error) {
      if (!isUniqueViolation(error)) throw error;
      throw new AppError('conflict', `The profile already exists`, { cause: error });
    }
  }

  update(id: number, changes: Pick<ProfileRecord, 'description' | 'config' | 'devices'>): void {
    const { description, config, devices } = changes;
    this.#sqlite.run(
      'UPDATE profiles SET description = ?, config = ?, devices = ? WHERE id = ?',
      description,
      JSON.stringify(config),
      JSON.stringify(devices),
      id,
    );
  }

  /** AppError 'conflict' when the new name is taken. */
  rename(id: number, name: string): void {
    try {
      this.#sqlite.run('UPDATE profiles SET name = ? WHERE id = ?', name, id);
    } catch (error) {
      if (!isUniqueViolation(error)) throw error;
      throw new AppError('conflict', `Name "${name}" already in use`, { cause: error });
    }
  }

  delete(id: number): void {
    this.#sqlite.run('DELETE FROM profiles WHERE id = ?', id);
  }

  #holder(project: string): string {
    return this.#projects.holder('profiles', project);
  }
}
