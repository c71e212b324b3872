// The only file that knows node:sqlite: a connection with cached statements, transactions and plain rows.
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { faultPoint } from '#src/host/faults.ts';

export type SqlValue = string | number | null;
export type SqlRow = Readonly<Record<string, SqlValue>>;

export interface SqliteOptions {
  /** How long to wait for a lock of another process. */
  readonly waitMs?: number;
  readonly wal?: boolean;
}

/** One connection. Every call is synchronous and short. */
export class Sqlite implements Disposable {
  readonly #database: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  #inTransaction = false;

  /** `path` may be `:memory:`. */
  constructor(path: string, { waitMs = 5000, wal = true }: SqliteOptions = {}) {
    this.#database = new DatabaseSync(path, { enableForeignKeyConstraints: true, timeout: waitMs });
    // WAL with full sync: a row whose commit was answered survives a power cut.
    if (wal) this.#database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL');
  }

  /** Statements without parameters; for the schema. */
  script(sql: string): void {
    this.#database.exec(sql);
  }

  all(sql: string, ...values: readonly SqlValue[]): readonly SqlRow[] {
    return this.#prepare(sql).all(...values) as SqlRow[];
  }

  get(sql: string, ...values: readonly SqlValue[]): SqlRow | undefined {
    return this.#prepare(sql).get(...values) as SqlRow | undefined;
  }

  /** The number of changed rows and the id of an inserted one. */
  run(sql: string, ...values: readonly SqlValue[]): { readonly changes: number; readonly id: number } {
    if (!this.#inTransaction) faultPoint(`commit of ${sql}`);
    const { changes, lastInsertRowid } = this.#prepare(sql).run(...values);
    return { changes: Number(changes), id: Number(lastInsertRowid) };
  }

  /** All or nothing; a transaction inside a transaction is part of the outer one. */
  transaction<T>(work: () => T): T {
    if (this.#inTransaction) return work();
    this.#database.exec('BEGIN IMMEDIATE');
    this.#inTransaction = true;
    try {
      const result = work();
      faultPoint('commit of a transaction');
      this.#database.exec('COMMIT');
      return result;
    } catch (error) {
      // A commit on a full disk has undone itself.
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      throw error;
    } finally {
      this.#inTransaction = false;
    }
  }

  [Symbol.dispose](): void {
    this.#statements.clear();
    this.#database.close();
  }

  #prepare(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (!statement) {
      statement = this.#database.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }
}

/** Whether an error is the refusal of a second row with the same key. */
export function isUniqueViolation(error: unknown): boolean {
  const code = error instanceof Error && 'errcode' in error ? error.errcode : undefined;
  return code === 2067 || code === 1555;
}

/** Whether an error is the lock of another process. */
export function isBusy(error: unknown): boolean {
  const code = error instanceof Error && 'errcode' in error ? Number(error.errcode) : 0;
  return (code & 0xff) === 5;
}
