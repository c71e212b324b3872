// Projects in the database, and which of them holds what another one uses.
import { AppError } from '#src/lib/errors.ts';
import type { ConfigMap } from '../types.ts';
import { json, text } from './rows.ts';
import { isUniqueViolation, type Sqlite, type SqlRow } from './sqlite.ts';

export interface ProjectRecord {
  readonly name: string;
  readonly description: string;
  readonly config: ConfigMap;
}

/** What a project has of its own, or takes from the default project. */
export type ProjectFeature = 'images' | 'profiles' | 'storage.volumes' | 'networks';

export const DEFAULT_PROJECT = 'default';

function recordOf(row: SqlRow): ProjectRecord {
  return { name: text(row, 'name'), description: text(row, 'description'), config: json(row, 'config') };
}

export class ProjectRows {
  readonly #sqlite: Sqlite;
  /** They are few and asked for with every request. */
  #known: ReadonlyMap<string, ProjectRecord> | undefined;

  constructor(sqlite: Sqlite) {
    this.#sqlite = sqlite;
  }

  list(): readonly ProjectRecord[] {
    return [...this.#all().values()];
  }

  find(name: string): ProjectRecord | undefined {
    return this.#all().get(name);
  }

  /** AppError 'not_found' with LXD's text. */
  get(name: string): ProjectRecord {
    const record = this.find(name);
    if (!record) throw new AppError('not_found', 'Project not found');
    return record;
  }

  /** The project itself when it has its own ones of that kind (or does not exist), else the default project. */
  holder(feature: ProjectFeature, project: string): string {
    const record = this.find(project);
    return record && record.config[`features.${feature}`] !== 'true' ? DEFAULT_PROJECT : project;
  }

  /** The projects that see what `project` has of that kind. */
  sharing(feature: ProjectFeature, project: string): readonly string[] {
    return this.list()
      .map(({ name }) => name)
      .filter((name) => this.holder(feature, name) === project);
  }

  /** AppError 'conflict' when the name is taken. */
  create({ name, description, config }: ProjectRecord): void {
    const sql = 'INSERT INTO projects (name, description, config) VALUES (?, ?, ?)';
    this.#changing(() => this.#sqlite.run(sql, name, description, JSON.stringify(config)));
  }

  update({ name, description, config }: ProjectRecord): void {
    const sql = 'UPDATE projects SET description = ?, config = ? WHERE name = ?';
    this.#changing(() => this.#sqlite.run(sql, description, JSON.stringify(config), name));
  }

  /** With what it holds, and in the certificates that are restricted to it. AppError 'conflict' when the name is taken. */
  rename(name: string, newName: string): void {
    this.#changing(() => {
      this.#sqlite.transaction(() => {
        this.#sqlite.run('UPDATE projects SET name = ? WHERE name = ?', newName, name);
        this.#replaceInCertificates(name, [newName]);
      });
    });
  }

  /** It holds nothing any more. */
  delete(name: string): void {
    this.#changing(() => {
      this.#sqlite.transaction(() => {
        this.#sqlite.run('DELETE FROM projects WHERE name = ?', name);
        this.#replaceInCertificates(name, []);
      });
    });
  }

  #all(): ReadonlyMap<string, ProjectRecord> {
    this.#known ??= new Map(
      this.#sqlite.all('SELECT * FROM projects ORDER BY name').map((row) => [text(row, 'name'), recordOf(row)]),
    );
    return this.#known;
  }

  #changing(work: () => unknown): void {
    try {
      work();
    } catch (error) {
      if (!isUniqueViolation(error)) throw error;
      throw new AppError('conflict', 'This "projects" entry already exists', { cause: error });
    } finally {
      this.#known = undefined;
    }
  }

  #replaceInCertificates(name: string, by: readonly string[]): void {
    for (const row of this.#sqlite.all('SELECT fingerprint, projects FROM certificates')) {
      const projects = json<readonly string[]>(row, 'projects');
      if (!projects.includes(name)) continue;
      const next = projects.flatMap((project) => (project === name ? by : [project]));
      const sql = 'UPDATE certificates SET projects = ? WHERE fingerprint = ?';
      this.#sqlite.run(sql, JSON.stringify(next), text(row, 'fingerprint'));
    }
  }
}
