// Which ids instances have on the host; no two isolated ones ever have one in common (lxd-engine-contract section 4.3).
import type { IdMapRange } from '#src/host/id-map.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import type { ConfigMap } from '../types.ts';
import { expander } from './expansion.ts';
import { hostIdRange, idMapBase, idMapFor, pieceOf, type IdPiece } from './idmap.ts';
import { lockKey, type InstanceKey } from './instance-paths.ts';

const BASE = 'volatile.idmap.base';

export class InstanceIds {
  readonly #context: Pick<EngineContext, 'database' | 'host'>;
  /** Of instances that are being made. */
  readonly #claims = new Map<string, IdPiece>();
  #range: Promise<IdMapRange> | undefined;

  constructor(context: Pick<EngineContext, 'database' | 'host'>) {
    this.#context = context;
  }

  /** By its expanded configuration; null: privileged. An isolated one that has no range yet gets it when it starts. */
  async of({ id }: Pick<InstanceRecord, 'id'>, config: ConfigMap): Promise<IdMapRange | null> {
    return this.#find(await this.#hostRange(), { id, config });
  }

  /**
   * For an instance without a record: what is found is nobody else's until release(). What its configuration says of a range
   * that it has is the range of the instance which it is a copy of. The caller holds the lock of the name.
   */
  async claim(key: InstanceKey, config: ConfigMap): Promise<IdMapRange | null> {
    const range = await this.#hostRange();
    const map = this.#find(range, { config: { ...config, [BASE]: '0' } });
    if (map && idMapBase(config, map) !== '0') this.#claims.set(lockKey(key), pieceOf(range, map));
    return map;
  }

  release(key: InstanceKey): void {
    this.#claims.delete(lockKey(key));
  }

  /** For a start: the range is in the record at once, or another start could find the same one. The caller holds the lock. */
  async assign(
    stopped: InstanceRecord,
  ): Promise<{ readonly record: InstanceRecord; readonly idMap: IdMapRange | null }> {
    const range = await this.#hostRange();
    const { instances } = this.#context.database;
    const { config } = expander(this.#context.database)(stopped);
    const idMap = this.#find(range, { id: stopped.id, config });
    const base = idMapBase(config, idMap);
    if (base === (stopped.config[BASE] ?? '0')) return { record: stopped, idMap };
    const record = { ...stopped, config: { ...stopped.config, [BASE]: base } };
    instances.update(record.id, { config: record.config });
    return { record, idMap };
  }

  /** Does not wait: what it finds is noted by the caller before anybody else can look. */
  #find(range: IdMapRange, { id, config }: { readonly id?: number; readonly config: ConfigMap }): IdMapRange | null {
    const { database } = this.#context;
    const others = () => {
      const expand = expander(database);
      const records = database.instances.list().filter((other) => other.id !== id);
      return records.map((other) => expand(other).config);
    };
    return idMapFor(range, { config, others, claims: [...this.#claims.values()] });
  }

  #hostRange(): Promise<IdMapRange> {
    this.#range ??= hostIdRange(this.#context.host);
    return this.#range;
  }
}
