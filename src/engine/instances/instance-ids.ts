// Which ids instances have on the host; no two isolated ones ever have one in common (lxd-engine-contract section 4.3).
import type { IdMapRange } from '#src/host/id-map.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import type { ConfigMap } from '../types.ts';
import { expander } from './expansion.ts';
import { hostIdRange, idMapBase, idMapFor, idMapJson, type IdPiece, type InstanceIdMap, rawIdMap } from './idmap.ts';
import { lockKey, type InstanceKey } from './instance-paths.ts';
import { checkAllowed } from './raw-idmap.ts';

const BASE = 'volatile.idmap.base';
const NEXT = 'volatile.idmap.next';

const DECIDING = [
  'raw.idmap',
  'security.idmap.base',
  'security.idmap.isolated',
  'security.idmap.size',
  'security.privileged',
];

export interface Claim {
  readonly idMap: IdMapRange | null;
  /** What the record is to say of it. */
  readonly volatile: ConfigMap;
}

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
    return this.#find(await this.#hostRange(), { id, config })?.map ?? null;
  }

  /**
   * For an instance without a record: what is found is nobody else's until release(). What its configuration says of a range
   * that it has is the range of the instance which it is a copy of. The caller holds the lock of the name.
   */
  async claim(key: InstanceKey, config: ConfigMap): Promise<Claim> {
    const range = await this.#hostRange();
    const ids = this.#find(range, { config: { ...config, [BASE]: '0' } });
    if (ids?.piece) this.#claims.set(lockKey(key), ids.piece);
    const idMap = ids?.map ?? null;
    return { idMap, volatile: { [BASE]: idMapBase(range, ids), [NEXT]: idMapJson(idMap) } };
  }

  /** What the next start will have: keys of the record, none when nothing changed. AppError when it could not start so. */
  async changed({ id }: Pick<InstanceRecord, 'id'>, before: ConfigMap, after: ConfigMap): Promise<ConfigMap> {
    if (DECIDING.every((key) => (before[key] ?? '') === (after[key] ?? ''))) return {};
    const ids = this.#find(await this.#hostRange(), { id, config: after });
    return { [NEXT]: idMapJson(ids?.map ?? null) };
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
    await checkAllowed(this.#context.host, rawIdMap(config));
    const ids = this.#find(range, { id: stopped.id, config });
    const base = idMapBase(range, ids);
    const idMap = ids?.map ?? null;
    if (base === stopped.config[BASE]) return { record: stopped, idMap };
    const record = { ...stopped, config: { ...stopped.config, [BASE]: base } };
    instances.update(record.id, { config: record.config });
    return { record, idMap };
  }

  /** Does not wait: what it finds is noted by the caller before anybody else can look. */
  #find(range: IdMapRange, { id, config }: { readonly id?: number; readonly config: ConfigMap }): InstanceIdMap | null {
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
