// Images and their aliases in the database. A project that has none of its own uses those of the default project.
import { AppError } from '#src/lib/errors.ts';
import type { ProjectRows } from './projects.ts';
import type { AliasRecord, ImageRecord } from './records.ts';
import { flag, integer, json, text, toSql } from './rows.ts';
import { isUniqueViolation, type Sqlite, type SqlRow } from './sqlite.ts';

/** The project may be one that keeps its images elsewhere: the profiles are its own all the same. */
export type NewImage = Omit<ImageRecord, 'id' | 'profilesOf'>;
export type ImageChanges = Partial<
  Pick<
    ImageRecord,
    'filename' | 'isPublic' | 'autoUpdate' | 'cached' | 'properties' | 'profiles' | 'expiresAt' | 'lastUsedAt'
  >
>;

const COLUMNS = {
  project: 'project',
  fingerprint: 'fingerprint',
  filename: 'filename',
  sizeBytes: 'size_bytes',
  isPublic: 'is_public',
  autoUpdate: 'auto_update',
  cached: 'cached',
  architecture: 'architecture',
  type: 'type',
  properties: 'properties',
  updateSource: 'update_source',
  profiles: 'profiles',
  createdAt: 'created_at',
  expiresAt: 'expires_at',
  lastUsedAt: 'last_used_at',
  uploadedAt: 'uploaded_at',
} as const satisfies Record<keyof NewImage, string>;

/** What an image gets where nobody has said anything. */
const NO_PROFILES_SAID = ['default'];

function recordOf(row: SqlRow): Omit<ImageRecord, 'profilesOf'> {
  return {
    id: integer(row, 'id'),
    project: text(row, 'project'),
    fingerprint: text(row, 'fingerprint'),
    filename: text(row, 'filename'),
    sizeBytes: integer(row, 'size_bytes'),
    isPublic: flag(row, 'is_public'),
    autoUpdate: flag(row, 'auto_update'),
    cached: flag(row, 'cached'),
    architecture: text(row, 'architecture'),
    type: 'container',
    properties: json(row, 'properties'),
    updateSource: json(row, 'update_source'),
    profiles: json(row, 'profiles'),
    createdAt: text(row, 'created_at'),
    expiresAt: text(row, 'expires_at'),
    lastUsedAt: text(row, 'last_used_at'),
    uploadedAt: text(row, 'uploaded_at'),
  };
}

export class ImageRows {
  readonly #sqlite: Sqlite;
  readonly #projects: ProjectRows;

  constructor(sqlite: Sqlite, projects: ProjectRows) {
    this.#sqlite = sqlite;
    this.#projects = projects;
  }

  /** Newest first; of all projects when none is named. */
  list(project?: string): readonly ImageRecord[] {
    const rows =
      project === undefined
        ? this.#sqlite.all('SELECT * FROM images ORDER BY uploaded_at DESC, id DESC')
        : this.#sqlite.all(
            'SELECT * FROM images WHERE project = ? ORDER BY uploaded_at DESC, id DESC',
            this.#holder(project),
          );
    return rows.map((row) => this.#seen(row, project));
  }

  find(project: string, fingerprint: string): ImageRecord | undefined {
    const row = this.#sqlite.get(
      'SELECT * FROM images WHERE project = ? AND fingerprint = ?',
      this.#holder(project),
      fingerprint,
    );
    return row && this.#seen(row, project);
  }

  /** By a unique prefix. AppError 'not_found', or 'invalid' when more than one image matches. */
  get(project: string, prefix: string): ImageRecord {
    const sql = 'SELECT * FROM images WHERE project = ? AND substr(fingerprint, 1, ?) = ? LIMIT 2';
    const rows = prefix === '' ? [] : this.#sqlite.all(sql, this.#holder(project), prefix.length, prefix);
    const [row] = rows;
    if (!row) throw new AppError('not_found', 'Image not found');
    if (rows.length > 1) throw new AppError('invalid', 'More than one image matches');
    return this.#seen(row, project);
  }

  /** With the profiles of the project that looks; of all projects, with those of the image's own. */
  #seen(row: SqlRow, project: string | undefined): ImageRecord {
    const image = recordOf(row);
    const own = this.#projects.holder('profiles', image.project);
    const profilesOf = this.#projects.holder('profiles', project ?? image.project);
    if (profilesOf === own) return { ...image, profilesOf };
    const sql = 'SELECT profiles FROM image_profiles WHERE image_id = ? AND project = ?';
    const found = this.#sqlite.get(sql, image.id, profilesOf);
    return { ...image, profilesOf, profiles: found ? json(found, 'profiles') : NO_PROFILES_SAID };
  }

  #setProfiles({ id, project }: Pick<ImageRecord, 'id' | 'project'>, of: string, profiles: readonly string[]): void {
    if (of === this.#projects.holder('profiles', project)) {
      this.#sqlite.run('UPDATE images SET profiles = ? WHERE id = ?', toSql(profiles), id);
      return;
    }
    this.#sqlite.run(
      'INSERT INTO image_profiles (image_id, project, profiles) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET profiles = excluded.profiles',
      id,
      of,
      toSql(profiles),
    );
  }

  /** Of all projects, from one image to another that takes its place. */
  moveProfiles(fromId: number, toId: number): void {
    const own = 'UPDATE images SET profiles = (SELECT profiles FROM images WHERE id = ?) WHERE id = ?';
    this.#sqlite.run(own, fromId, toId);
    this.#sqlite.run('UPDATE OR REPLACE image_profiles SET image_id = ? WHERE image_id = ?', toId, fromId);
  }

  /** AppError 'conflict' when it is there already. */
  create(said: NewImage): ImageRecord {
    const profilesOf = this.#projects.holder('profiles', said.project);
    const image = { ...said, project: this.#holder(said.project), profiles: NO_PROFILES_SAID };
    const fields = Object.keys(COLUMNS) as (keyof NewImage)[];
    const columns = fields.map((field) => COLUMNS[field]).join(', ');
    const sql = `INSERT INTO images (${columns}) VALUES (${fields.map(() => '?').join(', ')})`;
    try {
      const { id } = this.#sqlite.run(sql, ...fields.map((field) => toSql(image[field])));
      this.#setProfiles({ id, project: image.project }, profilesOf, said.profiles);
      return { ...image, id, profiles: said.profiles, profilesOf };
    } catch (error) {
      if (!isUniqueViolation(error)) throw error;
      throw new AppError('conflict', 'Image with same fingerprint already exists', { cause: error });
    }
  }

  /** Only what `changes` names; profiles for the project that the record was read for. */
  update(image: Pick<ImageRecord, 'id' | 'project' | 'profilesOf'>, changes: ImageChanges): void {
    const { id } = image;
    if (changes.profiles) this.#setProfiles(image, image.profilesOf, changes.profiles);
    const fields = (Object.keys(COLUMNS) as (keyof NewImage)[]).filter((field) => {
      return field !== 'profiles' && Object.hasOwn(changes, field);
    });
    if (fields.length === 0) return;
    const assignments = fields.map((field) => `${COLUMNS[field]} = ?`).join(', ');
    const values = fields.map((field) => toSql(changes[field as keyof ImageChanges]));
    this.#sqlite.run(`UPDATE images SET ${assignments} WHERE id = ?`, ...values, id);
  }

  /** With its aliases. Absent is success. */
  delete(id: number): void {
    this.#sqlite.run('DELETE FROM images WHERE id = ?', id);
  }

  #holder(project: string): string {
    return this.#projects.holder('images', project);
  }
}

const ALIAS_SELECT = `
  SELECT a.name, a.description, i.fingerprint AS target, a.image_id, i.is_public
  FROM image_aliases a JOIN images i ON i.id = a.image_id`;

function aliasOf(row: SqlRow): AliasRecord {
  return { name: text(row, 'name'), description: text(row, 'description'), target: text(row, 'target') };
}

export class AliasRows {
  readonly #sqlite: Sqlite;
  readonly #projects: ProjectRows;

  constructor(sqlite: Sqlite, projects: ProjectRows) {
    this.#sqlite = sqlite;
    this.#projects = projects;
  }

  list(project: string): readonly AliasRecord[] {
    return this.#sqlite.all(`${ALIAS_SELECT} WHERE a.project = ? ORDER BY a.name`, this.#holder(project)).map(aliasOf);
  }

  find(project: string, name: string): AliasRecord | undefined {
    const row = this.#sqlite.get(`${ALIAS_SELECT} WHERE a.project = ? AND a.name = ?`, this.#holder(project), name);
    return row && aliasOf(row);
  }

  /** AppError 'not_found' with LXD's text. */
  get(project: string, name: string): AliasRecord {
    const record = this.find(project, name);
    if (!record) throw new AppError('not_found', 'Image alias not found');
    return record;
  }

  /** AppError 'conflict' when the name is taken. */
  create(project: string, alias: Omit<AliasRecord, 'target'>, imageId: number): void {
    try {
      this.#sqlite.run(
        'INSERT INTO image_aliases (project, name, description, image_id) VALUES (?, ?, ?, ?)',
        this.#holder(project),
        alias.name,
        alias.description,
        imageId,
      );
    } catch (error) {
      throw this.#taken(error, alias.name);
    }
  }

  update(project: string, alias: Omit<AliasRecord, 'target'>, imageId: number): void {
    const sql = 'UPDATE image_aliases SET description = ?, image_id = ? WHERE project = ? AND name = ?';
    this.#sqlite.run(sql, alias.description, imageId, this.#holder(project), alias.name);
  }

  /** AppError 'conflict' when the new name is taken. */
  rename(project: string, name: string, newName: string): void {
    try {
      this.#sqlite.run(
        'UPDATE image_aliases SET name = ? WHERE project = ? AND name = ?',
        newName,
        this.#holder(project),
        name,
      );
    } catch (error) {
      throw this.#taken(error, newName);
    }
  }

  delete(project: string, name: string): void {
    this.#sqlite.run('DELETE FROM image_aliases WHERE project = ? AND name = ?', this.#holder(project), name);
  }

  #holder(project: string): string {
    return this.#projects.holder('images', project);
  }

  /** All names of one image to another one. */
  move(fromImageId: number, toImageId: number): void {
    this.#sqlite.run('UPDATE image_aliases SET image_id = ? WHERE image_id = ?', toImageId, fromImageId);
  }

  #taken(error: unknown, name: string): unknown {
    return isUniqueViolation(error)
      ? new AppError('conflict', `Alias "${name}" already exists`, { cause: error })
      : error;
  }
}
