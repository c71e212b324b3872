// What users wrote on volumes that are not theirs: roots of instances, their snapshots, unpacked images. Rows are there for those alone.
import type { ConfigMap } from '../types.ts';
import { integer, json, text } from './rows.ts';
import type { Sqlite, SqlRow } from './sqlite.ts';

export interface VolumeNotes {
  readonly description: string;
  readonly config: ConfigMap;
}

export const NO_NOTES: VolumeNotes = { description: '', config: {} };

const TABLES = {
  instance: ['instance_volumes', 'instance_id'],
  snapshot: ['instance_snapshot_volumes', 'snapshot_id'],
} as const;

type Owner = keyof typeof TABLES;

export class RootVolumeRows {
  readonly #sqlite: Sqlite;

  constructor(sqlite: Sqlite) {
    this.#sqlite = sqlite;
  }

  get(owner: Owner, id: number): VolumeNotes {
    const [table, key] = TABLES[owner];
    const row = this.#sqlite.get(`SELECT * FROM ${table} WHERE ${key} = ?`, id);
    return row ? notesOf(row) : NO_NOTES;
  }

  /** By the id of the owner. */
  all(owner: Owner): ReadonlyMap<number, VolumeNotes> {
    const [table, key] = TABLES[owner];
    return new Map(this.#sqlite.all(`SELECT * FROM ${table}`).map((row) => [integer(row, key), notesOf(row)]));
  }

  set(owner: Owner, id: number, { description, config }: VolumeNotes): void {
    const [table, key] = TABLES[owner];
    if (description === '' && Object.keys(config).length === 0) {
      this.#sqlite.run(`DELETE FROM ${table} WHERE ${key} = ?`, id);
      return;
    }
    const sql = `INSERT OR REPLACE INTO ${table} (${key}, description, config) VALUES (?, ?, ?)`;
    this.#sqlite.run(sql, id, description, JSON.stringify(config));
  }

  /** Of the images on a pool, by the id of the image. */
  images(pool: string): ReadonlyMap<number, VolumeNotes> {
    const rows = this.#sqlite.all('SELECT * FROM image_volumes WHERE pool = ?', pool);
    return new Map(rows.map((row) => [integer(row, 'image_id'), notesOf(row)]));
  }

  setImage(pool: string, imageId: number, { description, config }: VolumeNotes): void {
    const sql = 'INSERT OR REPLACE INTO image_volumes (pool, image_id, description, config) VALUES (?, ?, ?, ?)';
    this.#sqlite.run(sql, pool, imageId, description, JSON.stringify(config));
  }
}

function notesOf(row: SqlRow): VolumeNotes {
  return { description: text(row, 'description'), config: json(row, 'config') };
}
